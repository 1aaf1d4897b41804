#include "arena.h"

#include <algorithm>
#include <mutex>
#include <vector>

namespace fastnas {

namespace {

struct Block {
    char* data;
    std::size_t bytes;
};

std::mutex mutex;
std::vector<Block> unused;
constexpr std::size_t kMostBlocks = 4;

void free_block(const Block& block) {
    ::operator delete(block.data, std::align_val_t(kAlignment));
}

}  // namespace

Workspace::Workspace(std::size_t bytes) : bytes_(std::max(bytes, kAlignment)) {
    {
        const std::lock_guard lock(mutex);
        // The smallest that is large enough.
        auto best = unused.end();
        for (auto it = unused.begin(); it != unused.end(); ++it)
            if (it->bytes >= bytes_ && (best == unused.end() || it->bytes < best->bytes)) best = it;
        if (best != unused.end()) {
            data_ = best->data;
            bytes_ = best->bytes;
            unused.erase(best);
            return;
        }
        // None is: one that is too small makes room for it.
        if (!unused.empty()) {
            free_block(unused.back());
            unused.pop_back();
        }
    }
    data_ = static_cast<char*>(::operator new(bytes_, std::align_val_t(kAlignment)));
}

Workspace::~Workspace() {
    const std::lock_guard lock(mutex);
    if (unused.size() < kMostBlocks)
        unused.push_back({data_, bytes_});
    else
        free_block({data_, bytes_});
}

void Workspace::release_unused() {
    const std::lock_guard lock(mutex);
    for (const Block& block : unused) free_block(block);
    unused.clear();
}

std::size_t Workspace::unused_bytes() {
    const std::lock_guard lock(mutex);
    std::size_t total = 0;
    for (const Block& block : unused) total += block.bytes;
    return total;
}

}  // namespace fastnas
