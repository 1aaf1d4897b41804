// Two races on purpose, which ThreadSanitizer must report (.ci/sanitize): otherwise its silence about the engine means
// nothing. `race team` is between two threads of a team, `race calls` between two calls that write one output.
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
        std::thread other([&] { runner.forward(); });
        runner.forward();
        other.join();
    }
}
