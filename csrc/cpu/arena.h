// Memory that outlives a call, so that steps do not pay for fresh pages.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <stdexcept>

namespace fastnas {

constexpr std::size_t kAlignment = 64;

class Pool;

// A block of memory from a pool shared by the process; it returns there when the object goes. The pool never holds
// more, in use and unused together, than was in use at once.
class Workspace {
  public:
    // A lasting one takes no block that is much too large, whose rest nobody could use meanwhile.
    explicit Workspace(std::size_t bytes, bool lasting = false);
    ~Workspace();
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;
    char* data() const { return data_; }

    static void release_unused();       // gives the pool's memory back to the system
    static std::size_t unused_bytes();  // what the pool keeps

  private:
    std::shared_ptr<Pool> pool_;
    char* data_;
    std::size_t bytes_;
};

// Finds what calls would take from the pool, by making them without their work. On a thread that is inside, workspaces
// come from a pool of the rehearsal's own, in memory that is reserved but not there until it is touched, and
// parallel_for runs nothing. Some numbers for each channel are still computed, from whatever they find there.
class Rehearsal {
  public:
    Rehearsal();
    void enter();
    static void leave();
    static bool is_on();  // on this thread

    // Takes from this pool what the calls inside `other` took, in a fraction of the time. Returns the most that the
    // pool held meanwhile, in use and unused.
    std::size_t repeat(const Rehearsal& other);
    std::size_t held() const;  // what the pool holds now
    std::size_t most() const;  // the most that it ever held

  private:
    std::shared_ptr<Pool> pool_;
};

// Large arrays are set off against each other by so much. Where sizes are powers of two all would otherwise begin at
// the same place in a page, and a load waits for an earlier store at its place in another page (AMD's Zen 3).
constexpr std::size_t kPage = 4096, kSkew = 5 * kAlignment;

// Hands out pieces of a block. With no block it only counts: a layout runs once to learn its size and once in earnest.
class Arena {
  public:
    explicit Arena(char* base = nullptr) : base_(base) {}

    template <class T>
    T* take(std::size_t count) {
        T* result = reinterpret_cast<T*>(base_ + used_);
        const std::size_t bytes = count * sizeof(T);
        used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment + (bytes < kPage ? 0 : kSkew);
        return base_ ? result : nullptr;
    }
    std::size_t used() const { return used_; }

  private:
    char* base_;
    std::size_t used_ = 0;
};

// Scratch for what `layout(arena)` takes.
class Scratch {
  public:
    template <class Layout>
    explicit Scratch(Layout layout) : bytes_(measure(layout)), workspace_(bytes_) {
        Arena arena(workspace_.data());
        layout(arena);
        if (arena.used() != bytes_) throw std::logic_error("a layout takes other memory than it has counted");
    }

  private:
    template <class Layout>
    static std::size_t measure(Layout layout) {
        Arena arena;
        layout(arena);
        return arena.used();
    }
    std::size_t bytes_;
    Workspace workspace_;
};

}  // namespace fastnas
