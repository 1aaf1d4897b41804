// The peaks of the processor, and the loops they are measured with: one table for each vector width.
#pragma once

#include <cstddef>

namespace fastnas {

struct PeakLoops {
    double round_flops;  // floating-point operations in a round of multiply_add
    float (*multiply_add)(std::ptrdiff_t rounds, float factor, float addend);
    // out = a + factor·b
    void (*triad)(const float* a, const float* b, float factor, std::ptrdiff_t count, float* out);
};

// float32 operations a second, of all threads together.
double peak_flops(int threads, double seconds);
// Bytes a second that all threads together read and write, in arrays that fit half of a core's second-level cache, or
// that are far larger than all caches.
double peak_cache_bytes(int threads, double seconds);
double peak_memory_bytes(int threads, double seconds);

}  // namespace fastnas
