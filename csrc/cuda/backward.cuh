// The kernels of a backward but those that go back through a convolution (docs/gpu.md).
#pragma once

#include "values.cuh"

namespace fastnas::gpu {

// (tiles, 2, C_out): a tile's Σ g and Σ g·(u - mean); of the identity 0 and Σ g·x.
template <class T>
__device__ inline void grad_sums(const Tensors<T>& t, const Launch& launch, TileMemory& memory) {
    const Job& job = job_of(t, launch.list + blockIdx.y);
    const int number = int(blockIdx.x);
    const Tile tile(launch, number, job.out_height, job.out_width);
    if (tile.empty()) return;
    values(t, job, tile, memory);
    float* g = memory.d;  // d has been used up
    load_tile(t, job.grad, int(job.out_channels), tile, g);
    __syncthreads();
    store_sums(job, norm_row(t, job), number, tile, g, memory.u, t.floats + job.sums);
}

// With s₁ = Σ g, s₂ = inverse·Σ g·(u - mean): (3, C_out) a = α·γ·inverse, b = -a·inverse·s₂/M, c = -a·s₁/M, and this
// job's parts of ∂γ = α·s₂, ∂β = α·s₁ and ∂α = Σ_c γ·s₂ + β·s₁.
template <class T>
__device__ inline void coefficients(const Tensors<T>& t, const Launch& launch, MergeMemory& memory) {
    const Job& job = job_of(t, launch.list + blockIdx.y);
    const int channels = int(job.out_channels), count = int(job.sums_count);
    const double pixels = double(launch.images) * double(job.out_height * job.out_width);
    const double alpha = param_or(t.params, job.alpha, 1);
    double alpha_grad = 0;
    for (int first = 0; first < channels; first += kThreads) {
        const Columns at(first, channels);
        const int c = at.channel;
        const float* from = t.floats + job.sums + c;
        const double s1 = merge(at, count, memory, [&](int i) { return double(from[2 * i64(i) * channels]); });
        const double sum = merge(at, count, memory, [&](int i) { return double(from[(2 * i64(i) + 1) * channels]); });
        if (!at.writes()) continue;
        if (job.kind == kIdentity) {
            alpha_grad += sum;
            continue;
        }
        const double inverse = t.floats[job.norm + 3 * channels + c], s2 = inverse * sum;
        const double gamma = job.gamma < 0 ? 1 : t.params[job.gamma + c];
        const double beta = job.beta < 0 ? 0 : t.params[job.beta + c];
        const double a = alpha * gamma * inverse;
        float* to = t.floats + job.coefficients + c;
        to[0] = float(a);
        to[channels] = job.batch ? float(-a * inverse * s2 / pixels) : 0;
        to[2 * channels] = job.batch ? float(-a * s1 / pixels) : 0;
        if (job.affine_sums >= 0) {
            t.floats[job.affine_sums + c] = float(alpha * s2);
            t.floats[job.affine_sums + channels + c] = float(alpha * s1);
        }
        // Without γ there is no β: the product with 0 would turn an infinite s₁ into NaN.
        alpha_grad += job.gamma < 0 ? s2 : gamma * s2 + beta * s1;
    }
    if (job.alpha_sum < 0) return;
    alpha_grad = merge_threads(alpha_grad, memory);
    if (threadIdx.x == 0) t.floats[job.alpha_sum] = float(alpha_grad);
}

// What batch norm's derivative makes of g in a channel: a·g + b·(u - mean) + c. With running statistics it does not
// look at u, whose NaN is none of the gradient's.
struct NormGrad {
    float a, b, c, mean;
    bool batch;
    __device__ float operator()(float g, float u) const { return batch ? a * g + (b * (u - mean) + c) : a * g; }
};

// Of a job, by channel.
struct NormGrads {
    const float *coefficients, *norm;
    int channels;
    bool batch;

    template <class T>
    __device__ NormGrads(const Tensors<T>& t, const Job& job)
        : coefficients(t.floats + job.coefficients),
          norm(t.floats + job.norm),
          channels(int(job.out_channels)),
          batch(job.batch) {}
    __device__ NormGrad operator()(int c) const {
        return {coefficients[c], coefficients[channels + c], coefficients[2 * channels + c], norm[c], batch};
    }
};

// grads[place + i] = Σ over parts, plus what is there if `accumulate`
template <class T>
__device__ inline void reduce(const Tensors<T>& t, const Launch& launch, MergeMemory& memory) {
    constexpr int kChunk = 32;  // plan.h: kReduceChunk
    const Reduction r = reinterpret_cast<const Reduction*>(t.table + launch.list)[blockIdx.y];
    const int first = int(blockIdx.x) * kChunk;
    if (first >= r.size) return;
    const Columns at(first, at_most(first + kChunk, int(r.size)));
    const float* from = t.floats + r.source + at.channel;
    const double sum = merge(at, int(r.parts), memory, [&](int part) { return double(from[part * r.stride]); });
    if (!at.writes()) return;
    float& grad = t.grads[r.place + at.channel];
    grad = float(r.accumulate ? grad + sum : sum);
}

}  // namespace fastnas::gpu
