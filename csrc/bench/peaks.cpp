#include "peaks.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "../cpu/arena.h"
#include "../cpu/kernels.h"
#include "../cpu/parallel.h"
#include "clock.h"

namespace fastnas {

#define FASTNAS_DECLARE(width) extern const PeakLoops width##_peak_loops;
FASTNAS_DECLARE(baseline)
#ifdef FASTNAS_X86
FASTNAS_DECLARE(avx2)
FASTNAS_DECLARE(avx512)
#endif
#undef FASTNAS_DECLARE

namespace {

constexpr std::size_t kMiB = 1 << 20;

const PeakLoops& loops() {
#ifdef FASTNAS_X86
    if (!std::strcmp(vector_width(), "avx512")) return avx512_peak_loops;
    if (!std::strcmp(vector_width(), "avx2")) return avx2_peak_loops;
#endif
    return baseline_peak_loops;
}

// The size of a cache as the system knows it, or `otherwise`.
std::size_t cache_bytes(int level, std::size_t otherwise) {
    long size = 0;
#ifdef _SC_LEVEL2_CACHE_SIZE
    size = sysconf(level == 2 ? _SC_LEVEL2_CACHE_SIZE : _SC_LEVEL3_CACHE_SIZE);
#endif
    return size > 0 ? std::size_t(size) : otherwise;
}

// Every thread runs through three arrays of its own, together of `bytes`.
double triad_bytes(int threads, std::size_t bytes, double seconds) {
    const std::size_t count = bytes / (3 * sizeof(float)) / kAlignment * kAlignment;
    std::vector<float*> arrays(3 * threads);
    const Scratch scratch([&](Arena& arena) {
        for (float*& array : arrays) array = arena.take<float>(count);
    });
    // Each thread touches its pages first, so that they lie near it.
    parallel_for(threads, threads, [&](int t, int) {
        for (int i = 0; i < 3; ++i) std::fill_n(arrays[3 * t + i], count, float(i + 1));
    });
    // A sweep through a cache is short: it is repeated, so that starting the threads does not show.
    const std::size_t repeats = 1 + 4 * kMiB / bytes;
    const auto run = [&] {
        parallel_for(threads, threads, [&](int t, int) {
            float** own = &arrays[3 * t];
            for (std::size_t i = 0; i < repeats; ++i) loops().triad(own[0], own[1], 0.5f, count, own[2]);
        });
    };
    return 3.0 * sizeof(float) * double(count * repeats) * threads / sample(run, seconds).front();
}

}  // namespace

double peak_flops(int threads, double seconds) {
    constexpr std::ptrdiff_t rounds = 10000;
    volatile float sink = 0;
    const auto run = [&] {
        parallel_for(threads, threads, [&](int, int) {
            const float result = loops().multiply_add(rounds, 0.5f, 1.0f);
            if (result != result) sink = result;
        });
    };
    return rounds * loops().round_flops * threads / sample(run, seconds).front();
}

double peak_cache_bytes(int threads, double seconds) {
    return triad_bytes(threads, cache_bytes(2, kMiB / 2) / 2, seconds);
}

double peak_memory_bytes(int threads, double seconds) {
    const std::size_t all = std::clamp(8 * cache_bytes(3, 32 * kMiB), 256 * kMiB, 2048 * kMiB);
    const double result = triad_bytes(threads, std::max(all / threads, 8 * cache_bytes(2, kMiB)), seconds);
    Workspace::release_unused();
    return result;
}

}  // namespace fastnas
