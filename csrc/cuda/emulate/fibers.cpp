// Threads of a block as fibers of one thread of the system: fast, the same every time, and strict. A barrier that not
// all threads reach and a shuffle with a lane that never comes are errors, not a hang.
//
// To ThreadSanitizer each fiber is a thread, and nothing but a barrier orders what two of them do; a shuffle passes a
// value and orders nothing. This file itself must be compiled without it.
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#include "cuda.h"

#ifdef FASTNAS_TSAN
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#else
static void* __tsan_get_current_fiber() {
    return nullptr;
}
static void* __tsan_create_fiber(unsigned) {
    return nullptr;
}
static void __tsan_switch_to_fiber(void*, unsigned) {}
static void __tsan_acquire(void*) {}
static void __tsan_release(void*) {}
#endif

namespace {

constexpr unsigned kNoSync = 1;  // __tsan_switch_to_fiber_no_sync
constexpr int kLanes = 32;
constexpr std::size_t kStack = 64 << 10;

enum class State { ready, barrier, shuffle, done };

// Where a fiber, or who runs them all, goes on.
struct Place {
    ucontext_t context;
    jmp_buf jump;
    bool begun = false;
    void* tsan = nullptr;

    // Leaves `from` here, until something goes back to it. A context's switch is a system call, which is only for the
    // first time, and for sanitizers, which follow no jump from stack to stack.
    static void go(Place& from, Place& to) {
        __tsan_switch_to_fiber(to.tsan, kNoSync);
#ifdef FASTNAS_SANITIZED
        swapcontext(&from.context, &to.context);
#else
        if (_setjmp(from.jump)) return;
        from.begun = true;
        if (to.begun) _longjmp(to.jump, 1);
        setcontext(&to.context);
#endif
    }
};

struct Fiber {
    std::unique_ptr<char[]> stack{new char[kStack]};
    Place place;
    State state = State::done;
    int number = 0;
    unsigned barriers = 0;  // that it has come to
    unsigned mask = 0;      // of its shuffle
    int distance = 0;
    float value = 0;
};

class Block {
  public:
    explicit Block(int threads) : fibers_(threads) {
        scheduler_.tsan = __tsan_get_current_fiber();
        for (int i = 0; i < threads; ++i) {
            Fiber& fiber = fibers_[i];
            fiber.number = i;
            fiber.place.tsan = __tsan_create_fiber(0);
            getcontext(&fiber.place.context);
            fiber.place.context.uc_stack.ss_sp = fiber.stack.get();
            fiber.place.context.uc_stack.ss_size = kStack;
            makecontext(&fiber.place.context, &Block::main, 0);
        }
    }

    void run(const std::function<void()>& thread, const std::vector<int>& order) {
        thread_ = &thread;
        for (Fiber& fiber : fibers_) fiber.state = State::ready;
        __tsan_release(&start_);
        do {
            for (int i : order)
                if (fibers_[i].state == State::ready) resume(fibers_[i]);
            if (!error_.empty()) throw std::runtime_error(error_);
        } while (release());
        __tsan_acquire(&end_);
    }

    // The two ends of a barrier meet in one of two places in turn: who has passed it may come to the next one before
    // others pass.
    void wait(State state) {
        Fiber& fiber = *current_;
        fiber.state = state;
        char* meeting = &barriers_[fiber.barriers & 1];
        if (state == State::barrier) {
            __tsan_release(meeting);
            ++fiber.barriers;
        }
        Place::go(fiber.place, scheduler_);
        if (state == State::barrier) __tsan_acquire(meeting);
    }
    void begin() { __tsan_acquire(&start_); }
    void end() {
        __tsan_release(&end_);
        wait(State::done);
    }
    Fiber& current() { return *current_; }

  private:
    void resume(Fiber& fiber) {
        current_ = &fiber;
        Place::go(scheduler_, fiber.place);
    }

    static void main();

    // Lets go on whoever waits for nothing any more; false when all are done.
    bool release() {
        int counts[4] = {};
        for (const Fiber& fiber : fibers_) ++counts[int(fiber.state)];
        const int threads = int(fibers_.size());
        if (counts[int(State::done)] == threads) return false;
        if (counts[int(State::barrier)] == threads) {
            for (Fiber& fiber : fibers_) fiber.state = State::ready;
            return true;
        }
        bool moved = false;
        for (int first = 0; first < threads; first += kLanes) moved |= exchange(&fibers_[first]);
        if (!moved)
            throw std::runtime_error("__syncthreads or a shuffle that not all threads reach: of " +
                                     std::to_string(threads) + ", " + std::to_string(counts[int(State::barrier)]) +
                                     " wait at a barrier, " + std::to_string(counts[int(State::shuffle)]) +
                                     " at a shuffle, " + std::to_string(counts[int(State::done)]) + " have ended");
        return true;
    }

    // A warp's shuffles, of which all lanes have come.
    bool exchange(Fiber* warp) {
        bool moved = false;
        for (int lane = 0; lane < kLanes; ++lane) {
            if (warp[lane].state != State::shuffle || !complete(warp, warp[lane])) continue;
            const unsigned mask = warp[lane].mask;
            float values[kLanes];
            for (int i = 0; i < kLanes; ++i) values[i] = warp[i].value;
            for (int i = 0; i < kLanes; ++i) {
                if (!(mask >> i & 1)) continue;
                const int source = i ^ warp[i].distance;
                if (source >= kLanes || !(mask >> source & 1))
                    throw std::runtime_error("lane " + std::to_string(i) + " shuffles with lane " +
                                             std::to_string(source) + ", which its mask leaves out");
                warp[i].value = values[source];
                warp[i].state = State::ready;
            }
            moved = true;
        }
        return moved;
    }

    static bool complete(const Fiber* warp, const Fiber& one) {
        for (int i = 0; i < kLanes; ++i)
            if (one.mask >> i & 1 && (warp[i].state != State::shuffle || warp[i].mask != one.mask)) return false;
        return one.mask >> (one.number % kLanes) & 1;
    }

    std::vector<Fiber> fibers_;
    Place scheduler_;
    Fiber* current_ = nullptr;
    const std::function<void()>* thread_ = nullptr;
    std::string error_;
    char start_, end_, barriers_[2];  // for ThreadSanitizer: what orders memory
};

thread_local std::unique_ptr<Block> block;
thread_local Dim3 block_place;

void Block::main() {
    for (;;) {
        block->begin();
        try {
            (*block->thread_)();
        } catch (const std::exception& e) {
            block->error_ = e.what();
        }
        block->end();
    }
}

}  // namespace

Dim3 thread_index() {
    return {unsigned(block->current().number), 0, 0};
}

Dim3 block_index() {
    return block_place;
}

void __syncthreads() {
    block->wait(State::barrier);
}

float __shfl_xor_sync(unsigned mask, float value, int distance) {
    Fiber& fiber = block->current();
    fiber.mask = mask;
    fiber.value = value;
    fiber.distance = distance;
    block->wait(State::shuffle);
    return fiber.value;
}

namespace fastnas::emulate {

namespace {

std::vector<int> shuffled(int count, unsigned seed) {
    std::vector<int> order(count);
    std::iota(order.begin(), order.end(), 0);
    std::mt19937 engine(seed);
    if (seed) std::shuffle(order.begin(), order.end(), engine);
    return order;
}

}  // namespace

void run(const Grid& grid, void* shared, std::size_t size, const std::function<void()>& thread) {
    const std::vector<int> order = shuffled(grid.threads, grid.seed);
    if (!block) block = std::make_unique<Block>(grid.threads);
    try {
        for (int number : shuffled(grid.x * grid.y, grid.seed)) {
            block_place.x = unsigned(number % grid.x);
            block_place.y = unsigned(number / grid.x);
            std::memset(shared, 0xff, size);
            block->run(thread, order);
        }
    } catch (...) {
        block.reset();  // its fibers are stuck halfway
        throw;
    }
}

}  // namespace fastnas::emulate
