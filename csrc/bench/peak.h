// What a processor can do at most, with the vectors of one width: the loops to time. Compiled once for each width, as
// cpu/kernels is.
#pragma once

#include "../cpu/kernels/vec.h"
#include "peaks.h"

namespace fastnas::FASTNAS_WIDTH {

constexpr int kLanes = FASTNAS_BYTES / sizeof(float);
constexpr int kChains = 12;  // as many as hide the latency of an addition, and stay in 16 registers with two operands

// The sum keeps the compiler from dropping the loop.
inline float multiply_add(std::ptrdiff_t rounds, float factor, float addend) {
    const auto m = Vec<float, kLanes>{} + factor, a = Vec<float, kLanes>{} + addend;
    Vec<float, kLanes> acc[kChains];
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) acc[i] = a * float(i);
    for (std::ptrdiff_t r = 0; r < rounds; ++r)
#pragma GCC unroll 16
        for (int i = 0; i < kChains; ++i) acc[i] = acc[i] * m + a;
    float sum = 0;
    for (int i = 0; i < kChains; ++i)
        for (int l = 0; l < kLanes; ++l) sum += acc[i][l];
    return sum;
}

inline void triad(const float* a, const float* b, float factor, std::ptrdiff_t count, float* out) {
#pragma GCC unroll 4
    for (std::ptrdiff_t i = 0; i + kLanes <= count; i += kLanes)
        store<float, kLanes>(out + i, load<float, kLanes>(a + i) + load<float, kLanes>(b + i) * factor);
}

inline constexpr PeakLoops peak_loops{2.0 * kChains * kLanes, multiply_add, triad};

}  // namespace fastnas::FASTNAS_WIDTH
