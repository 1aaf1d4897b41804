// Threads of a block as fibers of one thread of the system: fast, the same every time, and strict. A barrier that not
// all threads reach and a shuffle with a lane that never comes are errors, not a hang.
#include <setjmp.h>
#include <ucontext.h>

#include <memory>
#include <stdexcept>

#include "cuda.h"

namespace {

constexpr int kLanes = 32;
constexpr std::size_t kStack = 64 << 10;

enum class State { ready, barrier, shuffle, done };

struct Fiber {
    std::unique_ptr<char[]> stack{new char[kStack]};
    ucontext_t start;
    jmp_buf place;
    bool begun = false;
    State state = State::done;
    int number = 0;
    unsigned mask = 0;  // of its shuffle
    int distance = 0;
    float value = 0;
};

class Block {
  public:
    explicit Block(int threads) : fibers_(threads) {
        for (int i = 0; i < threads; ++i) fibers_[i].number = i;
    }

    void run(const std::function<void()>& thread, const std::vector<int>& order) {
        thread_ = &thread;
        for (Fiber& fiber : fibers_) fiber.state = State::ready;
        do {
            for (int i : order)
                if (fibers_[i].state == State::ready) resume(fibers_[i]);
            if (!error_.empty()) throw std::runtime_error(error_);
        } while (release());
    }

    void wait(State state) {
        Fiber& fiber = *current_;
        fiber.state = state;
        if (_setjmp(fiber.place) == 0) _longjmp(scheduler_, 1);
    }
    Fiber& current() { return *current_; }

  private:
    void resume(Fiber& fiber) {
        current_ = &fiber;
        threadIdx.x = unsigned(fiber.number);
        if (_setjmp(scheduler_)) return;
        if (fiber.begun) _longjmp(fiber.place, 1);
        fiber.begun = true;
        getcontext(&fiber.start);
        fiber.start.uc_stack.ss_sp = fiber.stack.get();
        fiber.start.uc_stack.ss_size = kStack;
        makecontext(&fiber.start, &Block::main, 0);
        setcontext(&fiber.start);
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
    jmp_buf scheduler_;
    Fiber* current_ = nullptr;
    const std::function<void()>* thread_ = nullptr;
    std::string error_;
};

thread_local std::unique_ptr<Block> block;

void Block::main() {
    for (;;) {
        try {
            (*block->thread_)();
        } catch (const std::exception& e) {
            block->error_ = e.what();
        }
        block->wait(State::done);
    }
}

}  // namespace

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

void run(const Grid& grid, void* shared, std::size_t size, const std::function<void()>& thread) {
    const std::vector<int> order = shuffled(grid.threads, grid.seed);
    if (!block) block = std::make_unique<Block>(grid.threads);
    try {
        for (int number : shuffled(grid.x * grid.y, grid.seed)) {
            blockIdx.x = unsigned(number % grid.x);
            blockIdx.y = unsigned(number / grid.x);
            std::memset(shared, 0xff, size);
            block->run(thread, order);
        }
    } catch (...) {
        block.reset();  // its fibers are stuck halfway
        throw;
    }
}

}  // namespace fastnas::emulate
