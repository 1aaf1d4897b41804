// Back through a convolution stage (docs/gpu.md).
#pragma once

#include "backward.cuh"

namespace fastnas::gpu {

// ∂w (C_in, K, K) = or += Σ over a tile's pixels of ∂d·ReLU(x̂). A channel belongs to a warp, whose lanes hold the sums
// of all taps for their own pixels and then add them up.
template <int K, class T>
__device__ inline void depthwise_grad(const Tensors<T>& t, const Job& job, const Tile& tile, const float* d_grad,
                                      float* to, bool add) {
    const int channels = int(job.in_channels), width = int(job.in_width), area = int(job.in_height) * width;
    const float* norm = input_norm(t, job);
    for (int c = warp(); c < channels; c += kWarps) {
        const Normed normed = norm_of(norm, channels, c);
        float sums[K * K] = {};
        for (int p = lane(); p < tile.count; p += kLanes) {
            const Pixel pixel = tile.at(p);
            const Window window = window_of(job, pixel.y, pixel.x);
            const T* plane = image_of(t, job.input, pixel.image) + c * area;
            const float grad = d_grad[c * tile.pixels + p];
            each_tap<K, true>(window, width,
                              [&](int tap, int place) { sums[tap] += grad * relu(normed(to_float(plane[place]))); });
        }
        const float sum = transpose_sum(sums);
        if (lane() < K * K) {
            float& element = to[c * K * K + lane()];
            element = add ? element + sum : sum;
        }
    }
}

// What the stages of all jobs have in common, for a tile of a part.
template <class T>
struct StageBack {
    const Tensors<T>& t;
    const Job& job;
    TileMemory& memory;
    const int rows, columns;
    float* weight_sums;  // this part's, or null

    __device__ void run(const Tile& tile, bool add) const {
        const bool looks = job.batch, kept = job.output.base >= 0;
        if (looks && !kept)
            values(t, job, tile, memory);
        else if (weight_sums != nullptr)
            gather(t, job, tile, memory.d);
        u_grad(tile, looks, kept);
        __syncthreads();
        if (weight_sums != nullptr) weight_grad(rows, columns, tile.pixels, memory.u, memory.d, weight_sums, add);
        const bool depthwise = weight_sums != nullptr && job.depthwise >= 0;
        if (job.grad_gathered.base >= 0 || depthwise) d_grad(tile, depthwise, add);
        __syncthreads();  // the next tile writes where others may still read
    }

    // ∂u over u. A thread reads what it overwrites and nothing else.
    __device__ void u_grad(const Tile& tile, bool looks, bool kept) const {
        const Pixel pixel = tile.mine();
        const T* grad = image_of(t, job.grad, pixel.image) + tile.offset(pixel);
        const T* output = looks && kept ? image_of(t, job.output, pixel.image) + tile.offset(pixel) : nullptr;
        for (int c = tile.channel; c < rows; c += tile.step) {
            float& u = memory.u[c * tile.pixels + tile.pixel];
            float result = 0;
            if (tile.inside()) {
                const float value = output != nullptr ? to_float(output[c * tile.area()]) : looks ? u : 0;
                result = NormGrad(t, job, c)(to_float(grad[c * tile.area()]), value);
            }
            u = result;
        }
    }

    // ∂d = Wᵀ·∂u over d, and ∂w of it.
    __device__ void d_grad(const Tile& tile, bool depthwise, bool add) const {
        __syncthreads();  // ∂W has read d
        product(Matrix{t.params + job.pointwise, 1, columns}, columns, rows, tile.pixels, memory.u, memory.d,
                [](int, float& to, float value) { to = value; });
        __syncthreads();
        if (job.grad_gathered.base >= 0) store_tile(t, job.grad_gathered, columns, tile, memory.d);
        if (!depthwise) return;
        float* to = weight_sums + i64(rows) * columns;
        if (job.kernel == 5)
            depthwise_grad<5>(t, job, tile, memory.d, to, add);
        else
            depthwise_grad<3>(t, job, tile, memory.d, to, add);
    }
};

// Part p of a job's tiles: p, p + parts, …
template <class T>
__device__ inline void stage_back(const Tensors<T>& t, const Launch& launch, TileMemory& memory) {
    const Job& job = job_of(t, launch.list + blockIdx.y);
    const int rows = int(job.out_channels), columns = int(job.in_channels), part = int(blockIdx.x);
    const int size = columns * (rows + (job.depthwise < 0 ? 0 : int(job.kernel * job.kernel)));
    float* sums = job.weight_sums < 0 ? nullptr : t.floats + job.weight_sums + i64(part) * size;
    const int tiles = tiles_of(launch, job);
    if (part >= tiles && sums != nullptr)
        for (int i = int(threadIdx.x); i < size; i += kThreads) sums[i] = 0;
    const StageBack<T> stage{t, job, memory, rows, columns, sums};
    for (int number = part; number < tiles; number += launch.grid_x)
        stage.run(Tile(launch, number, job.out_height, job.out_width), number != part);
}

// The transposed gather of ∂d at an input pixel, in one channel.
template <class T>
__device__ inline float gather_transposed(const Tensors<T>& t, const Job& job, const Pixel& pixel, int channel) {
    const int width = int(job.out_width);
    const T* plane = image_of(t, job.grad_gathered, pixel.image) + channel * (int(job.out_height) * width);
    const float* weights = t.params + job.depthwise + channel * (job.kernel * job.kernel);
    const auto same = [](float value) { return value; };
    if (job.kernel == 5) return convolve<5>(readers_of(job, pixel.y, pixel.x), plane, width, weights, same);
    if (job.kernel == 3) return convolve<3>(readers_of(job, pixel.y, pixel.x), plane, width, weights, same);
    return convolve<1>(readers_of(job, pixel.y, pixel.x), plane, width, weights, same);
}

// From ∂d of a stage to the gradient of the stage before, through the ReLU of its normed output x̂, and that gradient's
// sums as in grad_sums.
template <class T>
__device__ inline void hidden_back(const Tensors<T>& t, const Launch& launch, TileMemory& memory) {
    const Job& job = job_of(t, launch.list + blockIdx.y);
    const Job& before = reinterpret_cast<const Job*>(t.table)[job.before];
    const int channels = int(before.out_channels), number = int(blockIdx.x);
    const Tile tile(launch, number, before.out_height, before.out_width);
    if (tile.empty()) return;
    const float* norm = norm_row(t, before);
    if (tile.inside()) {
        const Pixel pixel = tile.mine();
        const T* output = image_of(t, before.output, pixel.image) + tile.offset(pixel);
        T* grad = image_of(t, before.grad, pixel.image) + tile.offset(pixel);
        for (int c = tile.channel; c < channels; c += tile.step) {
            const float u = to_float(output[c * tile.area()]);
            const bool blocked = norm_of(norm, channels, c)(u) <= 0;
            const T g = from_float<T>(blocked ? 0 : gather_transposed(t, job, pixel, c));
            grad[c * tile.area()] = g;
            memory.d[c * tile.pixels + tile.pixel] = to_float(g);
            memory.u[c * tile.pixels + tile.pixel] = u;
        }
    }
    __syncthreads();
    store_sums(before, norm, number, tile, memory.d, memory.u, t.floats + before.sums);
}

// A state's gradient: what is given of it, and Σ over the jobs that read it.
template <class T>
__device__ inline void source_back(const Tensors<T>& t, const Launch& launch, NoMemory&) {
    const State& state = state_of(t, launch);
    const Tile tile(launch, int(blockIdx.x), state.height, state.width);
    if (!tile.inside()) return;
    const Pixel pixel = tile.mine();
    const int place = tile.offset(pixel), area = tile.area();
    const T* value = image_of(t, state.value, pixel.image);
    for (int c = tile.channel; c < int(state.channels); c += tile.step) {
        const T* plane = value + c * area;
        float sum = state.given.base < 0 ? 0 : to_float(image_of(t, state.given, pixel.image)[c * area + place]);
        const bool blocked = to_float(plane[place]) <= 0;
        for (int i = 0; i < launch.count; ++i) {
            const Job& job = job_of(t, launch.list + i);
            if (job.kind == kIdentity) {
                const T* grad = image_of(t, job.grad, pixel.image) + c * area;
                sum += param_or(t.params, job.alpha, 1) * to_float(grad[place]);
            } else if (job.kind == kConvolution) {
                if (!blocked) sum += gather_transposed(t, job, pixel, c);
            } else {
                const int pooled = int(job.out_height) * int(job.out_width);
                const T* grad = image_of(t, job.grad_gathered, pixel.image) + c * pooled;
                sum += pool_transposed(job, pixel.y, pixel.x, plane, grad);
            }
        }
        image_of(t, state.grad, pixel.image)[c * area + place] = from_float<T>(sum);
    }
}

}  // namespace fastnas::gpu
