// The gradient of a state, from those of all that reads it (docs/gpu.md).
#pragma once

#include "stage_back.cuh"

namespace fastnas::gpu {

// The gradient of a pool's value u at output pixel (y, x): Σ over its edges of a·g + b·(u - mean) + c.
template <class T>
__device__ inline float members_grad(const Tensors<T>& t, const Job& leader, int image, int place, int c, float u) {
    const int area = int(leader.out_height) * int(leader.out_width);
    float sum = 0;
    for (int i = 0; i < int(leader.member_count); ++i) {
        const Job& job = job_of(t, leader.members + i);
        sum += NormGrad(t, job, c)(to_float(image_of(t, job.grad, image)[c * area + place]), u);
    }
    return sum;
}

// The transposed pool: what an input pixel, whose value is `own`, receives of the gradients of the windows that hold
// it.
template <class T>
__device__ inline float pool_transposed(const Tensors<T>& t, const Job& leader, const Pixel& pixel, int c,
                                        const T* plane, float own) {
    const Window readers = readers_of(leader, pixel.y, pixel.x);
    const int width = int(leader.out_width);
    float sum = 0;
#pragma unroll 1
    for (int tap = 0; tap < 9; ++tap) {
        const int row = readers.rows(tap / 3), column = readers.columns(tap % 3);
        if ((row | column) < 0) continue;
        const Window window = window_of(leader, row, column);
        const bool average = leader.kind == kAvgPool;
        if (!average && maximum(window, plane, int(leader.in_width)).tap != tap) continue;
        const float u = average ? rounded<T>(pooled(leader, window, plane)) : own;
        const float g = members_grad(t, leader, pixel.image, row * width + column, c, u);
        sum += average ? g / area(window) : g;
    }
    return sum;
}

// A state's gradient: what is given of it, and Σ over the jobs that read it.
template <class T>
__device__ inline void source_back(const Tensors<T>& t, const Launch& launch, NoMemory&) {
    const State& state = state_of(t, launch);
    const Tile tile(launch, int(blockIdx.x), state.height, state.width);
    if (!tile.inside()) return;
    const Pixel pixel = tile.mine();
    const int place = tile.offset(pixel), area = tile.area();
    const bool looks = state.value.base >= 0;
    const T* value = image_of(t, state.value, pixel.image);
    for (int c = tile.channel; c < int(state.channels); c += tile.step) {
        const T* plane = value + c * area;
        const float own = looks ? to_float(plane[place]) : 0;
        float sum = state.given.base < 0 ? 0 : to_float(image_of(t, state.given, pixel.image)[c * area + place]);
        for (int i = 0; i < launch.count; ++i) {
            const Job& job = job_of(t, launch.list + i);
            if (job.kind == kIdentity) {
                const T* grad = image_of(t, job.grad, pixel.image) + c * area;
                sum += param_or(t.params, job.alpha, 1) * to_float(grad[place]);
            } else if (job.resample) {
                const i64 plane_area = job.out_height * job.out_width;
                sum += resample_transposed(job, pixel, image_of(t, job.grad_gathered, pixel.image) + c * plane_area);
            } else if (job.kind == kConvolution) {
                if (!(own <= 0)) sum += gather_transposed(t, job, pixel, c);
            } else {
                sum += pool_transposed(t, job, pixel, c, plane, own);
            }
        }
        image_of(t, state.grad, pixel.image)[c * area + place] = from_float<T>(sum);
    }
}

}  // namespace fastnas::gpu
