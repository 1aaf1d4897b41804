#include "arena.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace fastnas {

namespace {

struct Block {
    char* data;
    std::size_t bytes;
};

constexpr std::size_t kHugePage = std::size_t(2) << 20;

#ifdef __linux__

// Large blocks come from the system itself, so that they go back to it at once, and start at a huge page and ask for
// them: fewer page faults, fewer misses of the TLB.
char* map(std::size_t bytes) {
    void* mapped = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    char* const begin = static_cast<char*>(mapped);
    const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(begin) % kHugePage) % kHugePage;
    if (before > 0) munmap(begin, before);
    munmap(begin + before + bytes, kHugePage - before);
    madvise(begin + before, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
    return begin + before;
}

void unmap(const Block& block) {
    munmap(block.data, block.bytes);
}

// Address space, in small pages, of any size: none of it counts before it is touched.
char* reserve(std::size_t bytes) {
    void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    madvise(mapped, bytes, MADV_NOHUGEPAGE);
    return static_cast<char*>(mapped);
}

#else

char* map(std::size_t bytes) {
    return static_cast<char*>(::operator new(bytes, std::align_val_t(kAlignment)));
}

void unmap(const Block& block) {
    ::operator delete(block.data, std::align_val_t(kAlignment));
}

char* reserve(std::size_t bytes) {
    return map(bytes);
}

#endif

Block allocate(std::size_t bytes, bool reserved) {
    if (bytes < kHugePage) return {static_cast<char*>(::operator new(bytes, std::align_val_t(kAlignment))), bytes};
    constexpr std::size_t page = 4096;
    bytes = (bytes + page - 1) / page * page;
    return {reserved ? reserve(bytes) : map(bytes), bytes};
}

void deallocate(const Block& block) {
    block.bytes < kHugePage ? ::operator delete(block.data, std::align_val_t(kAlignment)) : unmap(block);
}

}  // namespace

class Pool {
  public:
    explicit Pool(bool reserved) : reserved_(reserved) {}
    ~Pool() { shrink(0); }

    Block take(std::size_t bytes, bool lasting) {
        const std::lock_guard lock(mutex_);
        // The smallest that is large enough. A block that only few of the requests fit would soon be freed for want of
        // room and mapped again, so one of up to four times the size will do, unless it is kept for long.
        const std::size_t most = lasting ? bytes + bytes / 8 : 4 * bytes;
        auto best = unused_.end();
        for (auto it = unused_.begin(); it != unused_.end(); ++it)
            if (it->bytes >= bytes && it->bytes <= most && (best == unused_.end() || it->bytes < best->bytes))
                best = it;
        Block block;
        if (best != unused_.end()) {
            block = *best;
            unused_.erase(best);
        } else {
            peak_ = std::max(peak_, used_ + bytes);
            shrink(peak_ - used_ - bytes);
            block = allocate(bytes, reserved_);
        }
        used_ += block.bytes;
        peak_ = std::max(peak_, used_);
        most_held_ = std::max(most_held_, used_ + unused_bytes());
        if (reserved_) heard_.push_back({block.data, bytes, lasting});
        return block;
    }

    void give_back(const Block& block) {
        const std::lock_guard lock(mutex_);
        used_ -= block.bytes;
        unused_.push_back(block);
        if (reserved_) heard_.push_back({block.data, 0, false});
    }

    // Asks for what another was asked for, and gives back what was given back there. Returns the most that it held
    // meanwhile.
    std::size_t repeat(const Pool& other) {
        std::size_t most = held();
        std::map<const char*, Block> taken;  // by the address that the block has there
        for (const Request& request : other.heard_) {
            if (request.bytes > 0) {
                taken[request.block] = take(request.bytes, request.lasting);
                most = std::max(most, held());
            } else {
                give_back(taken.at(request.block));
                taken.erase(request.block);
            }
        }
        return most;
    }

    void release() {
        const std::lock_guard lock(mutex_);
        shrink(0);
        peak_ = used_;
    }

    std::size_t unused() {
        const std::lock_guard lock(mutex_);
        return unused_bytes();
    }

    std::size_t held() {
        const std::lock_guard lock(mutex_);
        return used_ + unused_bytes();
    }

    std::size_t most_held() {
        const std::lock_guard lock(mutex_);
        return most_held_;
    }

  private:
    std::size_t unused_bytes() const {
        std::size_t total = 0;
        for (const Block& block : unused_) total += block.bytes;
        return total;
    }

    // Frees what was unused for longest until `bytes` remain.
    void shrink(std::size_t bytes) {
        auto it = unused_.begin();
        for (std::size_t total = unused_bytes(); total > bytes; ++it) {
            total -= it->bytes;
            deallocate(*it);
        }
        unused_.erase(unused_.begin(), it);
    }

    struct Request {
        const char* block;
        std::size_t bytes;  // 0 where it is given back
        bool lasting;
    };

    const bool reserved_;
    std::mutex mutex_;
    std::vector<Request> heard_;  // only in a rehearsal
    std::vector<Block> unused_;   // the one that was given back last at the end
    std::size_t used_ = 0, peak_ = 0, most_held_ = 0;
};

namespace {

// Never destroyed: tensors that live in its blocks may outlast static objects.
const std::shared_ptr<Pool>& pool() {
    static const auto* const instance = new std::shared_ptr<Pool>(new Pool(false));
    return *instance;
}

thread_local std::shared_ptr<Pool> rehearsed;  // of the rehearsal that this thread is inside

}  // namespace

Workspace::Workspace(std::size_t bytes, bool lasting) : pool_(rehearsed ? rehearsed : pool()) {
    const Block block = pool_->take(std::max(bytes, kAlignment), lasting);
    data_ = block.data;
    bytes_ = block.bytes;
}

Workspace::~Workspace() {
    pool_->give_back({data_, bytes_});
}

void Workspace::release_unused() {
    pool()->release();
}

std::size_t Workspace::unused_bytes() {
    return pool()->unused();
}

Rehearsal::Rehearsal() : pool_(new Pool(true)) {}

void Rehearsal::enter() {
    rehearsed = pool_;
}

void Rehearsal::leave() {
    rehearsed = nullptr;
}

bool Rehearsal::is_on() {
    return rehearsed != nullptr;
}

std::size_t Rehearsal::repeat(const Rehearsal& other) {
    return pool_->repeat(*other.pool_);
}

std::size_t Rehearsal::held() const {
    return pool_->held();
}

std::size_t Rehearsal::most() const {
    return pool_->most_held();
}

}  // namespace fastnas
