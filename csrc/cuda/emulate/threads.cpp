// Threads of a block as threads of the system, for ThreadSanitizer and AddressSanitizer. Barriers order memory as on a
// GPU; a shuffle passes values and orders nothing.
#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>

#include "cuda.h"

namespace {

constexpr int kLanes = 32;

[[noreturn]] void fail(const char* why) {
    std::fprintf(stderr, "emulation: %s\n", why);
    std::_Exit(3);
}

class Barrier {
  public:
    void reset(int threads) { threads_ = threads; }
    // `ends`: this thread has come to the end of the block.
    void wait(bool ends) {
        std::unique_lock<std::mutex> lock(mutex_);
        ending_ += ends;
        if (++arrived_ == threads_) {
            if (ending_ != 0 && ending_ != threads_) fail("__syncthreads that not all threads reach");
            arrived_ = ending_ = 0;
            ++turn_;
            all_.notify_all();
            return;
        }
        all_.wait(lock, [this, turn = turn_] { return turn_ != turn; });
    }

  private:
    std::mutex mutex_;
    std::condition_variable all_;
    int threads_ = 0, arrived_ = 0, ending_ = 0, turn_ = 0;
};

// Two sets of slots in turn: who writes to one again knows from the other that all have read it.
struct Warp {
    std::atomic<float> slots[2][kLanes];
    std::atomic<long> arrived{0};
};

Barrier barrier;
std::unique_ptr<Warp[]> warps;
thread_local long shuffles = 0;

}  // namespace

void __syncthreads() {
    barrier.wait(false);
}

float __shfl_xor_sync(unsigned mask, float value, int distance) {
    if (mask != 0xffffffffu) fail("only shuffles of whole warps are emulated here");
    Warp& warp = warps[threadIdx.x / kLanes];
    std::atomic<float>* slots = warp.slots[shuffles & 1];
    slots[threadIdx.x % kLanes].store(value, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    warp.arrived.fetch_add(1, std::memory_order_relaxed);
    ++shuffles;
    while (warp.arrived.load(std::memory_order_relaxed) < shuffles * kLanes) sched_yield();
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return slots[threadIdx.x % kLanes ^ unsigned(distance)].load(std::memory_order_relaxed);
}

namespace fastnas::emulate {

void run(const Grid& grid, void* shared, std::size_t size, const std::function<void()>& thread) {
    barrier.reset(grid.threads);
    warps.reset(new Warp[grid.threads / kLanes]);
    const std::vector<int> blocks = shuffled(grid.x * grid.y, grid.seed);
    std::vector<std::thread> threads;
    for (int i = 0; i < grid.threads; ++i)
        threads.emplace_back([&, i] {
            threadIdx.x = unsigned(i);
            shuffles = 0;
            for (int number : blocks) {
                if (i == 0) std::memset(shared, 0xff, size);
                barrier.wait(false);
                blockIdx.x = unsigned(number % grid.x);
                blockIdx.y = unsigned(number / grid.x);
                thread();
                barrier.wait(true);
            }
        });
    for (std::thread& t : threads) t.join();
}

}  // namespace fastnas::emulate
