// Sums in an order that never changes.
#pragma once

#include "block.cuh"

namespace fastnas::gpu {

__device__ inline int lane() {
    return int(threadIdx.x) % kLanes;
}
__device__ inline int warp() {
    return int(threadIdx.x) / kLanes;
}

// Over groups of so many neighbouring lanes, a power of two; every lane of a group gets its sum.
__device__ inline float sum_lanes(float value, int lanes = kLanes) {
    for (int distance = lanes / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

// A sum with what its roundings lost, where eager PyTorch sums in double precision, of which many GPUs have one unit to
// 32 or 64 of float. `high` alone is the sum as floats give it, also of infinities.
struct ExactSum {
    float high = 0, lost = 0;

    __device__ void add(float value) {  // Knuth's TwoSum
        const float sum = high + value, added = sum - high;
        lost += (high - (sum - added)) + (value - added);
        high = sum;
    }
    // Over the lanes of a warp; every lane gets it.
    __device__ float over_lanes() {
        for (int distance = kLanes / 2; distance > 0; distance /= 2) {
            lost += __shfl_xor_sync(0xffffffffu, lost, distance);
            add(__shfl_xor_sync(0xffffffffu, high, distance));
        }
        const float sum = high + lost;
        return sum == sum ? sum : high;
    }
};

// Lane l gets Σ over lanes of values[l], l < N ≤ 32. Each step halves what a lane holds: 31 shuffles at most where sums
// one by one would take 5·N.
template <int N>
__device__ inline float transpose_sum(float (&values)[N]) {
    static_assert(N <= kLanes, "a lane holds one sum");
#pragma unroll
    for (int half = kLanes / 2; half > 0; half /= 2) {
        const bool upper = lane() & half;
#pragma unroll
        for (int i = 0; i < half && i < N; ++i) {
            const float high = i + half < N ? values[i + half < N ? i + half : 0] : 0.0f;
            const float send = upper ? values[i] : high, keep = upper ? high : values[i];
            values[i] = keep + __shfl_xor_sync(0xffffffffu, send, half);
        }
    }
    return values[0];
}

// Moments of a channel's pixels in a tile: Σ(u - m)² and the mean m = mean + left, for the variance of numbers far from
// 0 would show what m loses as a float. The first mean is only a guess to subtract; that of what then remains corrects
// it.
struct Moments {
    float mean, left, deviation;
};

__device__ inline Moments tile_moments(const float* u, int count) {
    float sum = 0;
    for (int p = lane(); p < count; p += kLanes) sum += u[p];
    const float guess = sum_lanes(sum) / float(count);
    float rest = 0, square = 0;
    for (int p = lane(); p < count; p += kLanes) {
        const float difference = u[p] - guess;
        rest += difference;
        square += difference * difference;
    }
    const float moved = sum_lanes(rest) / float(count), mean = guess + moved;
    return {mean, (guess - mean) + moved, sum_lanes(square) - float(count) * moved * moved};
}

// A job's `sums` for one tile: Σ g and Σ g·(u - mean) of every channel, from rows of g and u.
__device__ inline void store_sums(const Job& job, const float* norm, int number, const Tile& tile, const float* g,
                                  const float* u, float* sums) {
    const int channels = int(job.out_channels);
    sums += i64(number) * 2 * channels;
    for (int c = warp(); c < channels; c += kWarps) {
        const float mean = norm == nullptr ? 0 : norm[c];
        ExactSum first, second;
        for (int p = lane(); p < tile.count; p += kLanes) {
            const float grad = g[c * tile.pixels + p];
            first.add(grad);
            second.add(grad * (u[c * tile.pixels + p] - mean));
        }
        const float g_sum = first.over_lanes(), product_sum = second.over_lanes();
        if (lane() == 0) {
            sums[c] = job.kind == kIdentity ? 0 : g_sum;
            sums[channels + c] = product_sum;
        }
    }
}

// Merging: threads share a job's channels and, where there are fewer of them, also the tiles of each.
struct MergeMemory {
    double partial[kThreads];
};

struct Columns {
    int width, column, channel, slice, slices;

    // The channels from `first` on, as many as there are threads.
    __device__ Columns(int first, int channels)
        : width(channels - first < kThreads ? channels - first : kThreads),
          column(int(threadIdx.x) % width),
          channel(first + column),
          slice(int(threadIdx.x) / width),
          slices(kThreads / width) {}
    __device__ bool active() const { return slice < slices; }
    __device__ bool writes() const { return slice == 0; }
};

// Σ of term(i) over 0 ≤ i < count, by slices of neighbours and then over slices; every thread of a channel gets it.
template <class Term>
__device__ inline double merge(const Columns& at, int count, MergeMemory& memory, Term term) {
    double sum = 0;
    if (at.active()) {
        const int from = int(i64(count) * at.slice / at.slices), to = int(i64(count) * (at.slice + 1) / at.slices);
#pragma unroll 4
        for (int i = from; i < to; ++i) sum += term(i);
    }
    memory.partial[threadIdx.x] = sum;
    __syncthreads();
    sum = 0;
    for (int s = 0; s < at.slices; ++s) sum += memory.partial[s * at.width + at.column];
    __syncthreads();
    return sum;
}

// Σ over threads of `value`; every thread gets it.
__device__ inline double merge_threads(double value, MergeMemory& memory) {
    memory.partial[threadIdx.x] = value;
    __syncthreads();
    double sum = 0;
    for (int i = 0; i < kThreads; ++i) sum += memory.partial[i];
    __syncthreads();
    return sum;
}

}  // namespace fastnas::gpu
