// Threads: torch's own OpenMP pool. The library is compiled with -fopenmp and linked without it, so that importing
// torch first decides which runtime, and thus which pool, serves both.
#pragma once

#include <algorithm>

#ifdef FASTNAS_STD_THREADS  // only in ThreadSanitizer's build: it does not see how OpenMP's runtime makes threads wait
#include <thread>
#include <vector>
#else
#include <omp.h>
#endif

namespace fastnas {

// run(item, thread) for every item; a thread takes a contiguous range, so results do not depend on timing.
template <class Run>
void parallel_for(int threads, int items, Run run) {
    threads = std::min(threads, items);
    if (threads <= 1) {
        for (int i = 0; i < items; ++i) run(i, 0);
        return;
    }
    const auto work = [&](long thread, long count) {
        for (long i = items * thread / count, end = items * (thread + 1) / count; i < end; ++i)
            run(static_cast<int>(i), static_cast<int>(thread));
    };
#ifdef FASTNAS_STD_THREADS
    std::vector<std::thread> team;
    for (int thread = 0; thread < threads; ++thread) team.emplace_back(work, thread, threads);
    for (std::thread& member : team) member.join();
#else
#pragma omp parallel num_threads(threads)
    work(omp_get_thread_num(), omp_get_num_threads());
#endif
}

}  // namespace fastnas
