// Two races on purpose, which ThreadSanitizer must report (.ci/sanitize): otherwise its silence about the engine means
// nothing. `race team` is between two threads of a team, `race calls` between two calls that write one output.
#include <atomic>
#include <cstdio>
#include <cstring>
#include <thread>

#include "problem.h"

using namespace fastnas;
using namespace fastnas::test;

int main(int, char** arguments) {
    if (!std::strcmp(arguments[1], "team")) {
        int shared = 0;
        parallel_for(2, 2, [&](int item, int) { shared += item; });
        std::printf("%d\n", shared);
    } else {
        const Case c = cases()[0];
        const Problem<float> problem = fill<float>(c);
        Runner<float> runner(c, problem, Run());
        // Each waits for the other without ordering what it does, and repeats: the pool's lock orders calls that do not
        // overlap.
        std::atomic<int> waiting{2};
        const auto calls = [&] {
            for (waiting.fetch_sub(1, std::memory_order_relaxed); waiting.load(std::memory_order_relaxed) > 0;) {
            }
            for (int i = 0; i < 20; ++i) runner.forward();
        };
        std::thread other(calls);
        calls();
        other.join();
    }
}
