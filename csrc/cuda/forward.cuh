// The kernels of a forward (docs/gpu.md).
#pragma once

#include "values.cuh"

namespace fastnas::gpu {

// u into `output`, and a tile's moments: in floats (tiles, 2, C_out) mean and deviation, then (tiles, C_out) `left`.
template <class T>
__device__ inline void moments(const Tensors<T>& t, const Launch& launch, TileMemory& memory) {
    const Job& job = job_of(t, launch.list + blockIdx.y);
    const int number = int(blockIdx.x), channels = int(job.out_channels);
    const Tile tile(launch, number, job.out_height, job.out_width);
    if (tile.empty()) return;
    values(t, job, tile, memory);
    if (job.output.base >= 0) store_tile(t, job.output, channels, tile, memory.u);
    if (job.moments < 0) return;
    float* to = t.floats + job.moments + i64(number) * 2 * channels;
    float* left = t.floats + job.moments + (2 * i64(tiles_of(launch, job)) + number) * channels;
    for (int c = warp(); c < channels; c += kWarps) {
        const Moments found = tile_moments(memory.u + c * tile.pixels, tile.count);
        if (lane() == 0) {
            to[c] = found.mean;
            to[channels + c] = found.deviation;
            left[c] = found.left;
        }
    }
}

// Over tiles t of n_t pixels, M in all: mean = Σ n_t·mean_t / M, variance = Σ (deviation_t + n_t·(mean_t - mean)²) / M.
template <class T>
__device__ inline void merge_moments(const Tensors<T>& t, const Launch& launch, const Job& job, const Columns& at,
                                     MergeMemory& memory) {
    const int tiles = tiles_of(launch, job), pixels = launch.images * int(job.out_height) * int(job.out_width);
    const i64 channels = job.out_channels;
    const float* from = t.floats + job.moments + at.channel;
    const auto count = [&](int i) { return double(at_most(launch.tile, pixels - i * launch.tile)); };
    const auto tile_mean = [&](int i) { return double(from[2 * i * channels]) + from[(2 * tiles + i) * channels]; };
    const double mean = merge(at, tiles, memory, [&](int i) { return count(i) * tile_mean(i); }) / double(pixels);
    const double deviation = merge(at, tiles, memory, [&](int i) {
        const double apart = tile_mean(i) - mean;
        return from[(2 * i + 1) * channels] + count(i) * apart * apart;
    });
    if (!at.writes()) return;
    float* to = t.statistics + job.statistics + at.channel;
    to[0] = float(mean);
    to[launch.channels] = float(deviation > 0 ? deviation / double(pixels) : deviation == deviation ? 0 : deviation);
}

// Statistics, and from them (4, C_out): mean, scale = α·γ·inverse, shift = α·β, inverse = (variance + ε)^-½.
template <class T>
__device__ inline void norms(const Tensors<T>& t, const Launch& launch, MergeMemory& memory) {
    const Job& job = job_of(t, launch.list + blockIdx.y);
    const int channels = int(job.out_channels);
    const float alpha = param_or(t.params, job.alpha, 1);
    for (int first = 0; first < channels; first += kThreads) {
        const Columns at(first, channels);
        if (job.batch && job.moments >= 0) merge_moments(t, launch, job, at, memory);
        if (!at.writes()) continue;
        const int c = at.channel;
        const float* statistics = job.batch ? t.statistics + job.statistics : t.params + job.running;
        const float mean = statistics[c], variance = statistics[c + (job.batch ? launch.channels : job.running_stride)];
        const float gamma = job.gamma < 0 ? 1 : t.params[job.gamma + c];
        const float beta = job.beta < 0 ? 0 : t.params[job.beta + c];
        const double inverse = 1 / sqrt(double(variance) + __longlong_as_double(job.eps));
        float* norm = t.floats + job.norm + c;
        norm[0] = mean;
        norm[channels] = float(double(alpha) * gamma * inverse);
        norm[2 * channels] = alpha * beta;
        norm[3 * channels] = float(inverse);
    }
}

// A state: Σ over jobs of (u - mean)·scale + shift, added up where u is otherwise. A u that is kept may lie in the
// state's place: each thread reads its elements before it writes them.
template <class T>
__device__ inline void apply(const Tensors<T>& t, const Launch& launch, TileMemory& memory) {
    const State& state = state_of(t, launch);
    const int channels = int(state.channels);
    const Tile tile(launch, int(blockIdx.x), state.height, state.width);
    float* sums = memory.u;
    if (launch.accumulate)
        load_tile(t, state.value, channels, tile, sums);
    else
        for (int i = int(threadIdx.x); i < channels * tile.pixels; i += kThreads) sums[i] = 0;
    __syncthreads();
    for (int i = 0; i < launch.count; ++i) {
        const Job& job = job_of(t, launch.list + i);
        const int own = int(job.out_channels);
        const float* norm = norm_row(t, job);
        const float weight = norm == nullptr ? param_or(t.params, job.alpha, 1) : 1;
        float* rows = sums + job.first * tile.pixels;
        const auto add = [=](int c, float& to, float u) { to += weight * norm_of(norm, own, c)(u); };
        if (job.output.base >= 0)
            each_kept(t, job, tile, rows, add);
        else
            each_value(t, job, tile, memory.d, rows, add);
    }
    store_tile(t, state.value, channels, tile, sums);
}

}  // namespace fastnas::gpu
