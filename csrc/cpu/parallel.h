// Threads: torch's own OpenMP pool. The library is compiled with -fopenmp and linked without it, so that importing
// torch first decides which runtime, and thus which pool, serves both.
#pragma once

#include <algorithm>

#include "arena.h"

#ifdef FASTNAS_STD_THREADS  // only in ThreadSanitizer's build: it does not see how OpenMP's runtime makes threads wait
#include <thread>
#include <vector>
#else
#include <omp.h>
#endif

namespace fastnas {

// run(item, thread) for every item; a thread takes a contiguous range, so results do not depend on timing.
// Nothing in a rehearsal.
template <class Run>
void parallel_for(int threads, int items, Run run, bool backwards = false) {
    if (Rehearsal::is_on()) return;
    const auto work = [&](long thread, long count) {
        const long first = items * thread / count, last = items * (thread + 1) / count;
        for (long i = first; i < last; ++i)
            run(static_cast<int>(backwards ? first + last - 1 - i : i), static_cast<int>(thread));
    };
    threads = std::min(threads, items);
    if (threads <= 1) return work(0, 1);
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
