// Threads: torch's own OpenMP pool. The library is compiled with -fopenmp and linked without it, so that importing
// torch first decides which runtime, and thus which pool, serves both.
#pragma once

#include <omp.h>

#include <algorithm>

namespace fastnas {

// run(item, thread) for every item; a thread takes a contiguous range, so results do not depend on timing.
template <class Run>
void parallel_for(int threads, int items, Run run) {
    threads = std::min(threads, items);
    if (threads <= 1) {
        for (int i = 0; i < items; ++i) run(i, 0);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        const long thread = omp_get_thread_num(), count = omp_get_num_threads();
        for (long i = items * thread / count, end = items * (thread + 1) / count; i < end; ++i)
            run(static_cast<int>(i), static_cast<int>(thread));
    }
}

}  // namespace fastnas
