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

// Σ g and Σ g·(z - mean) of the stage before, whose output is z, over a tile of ∂d rather than of g: by channel
// Σ_q ∂d(q)·Σ_taps w·[x̂ > 0]·(z - mean), where x̂ and z are what the tap meets, and the same with 1 for (z - mean).
template <int K, class T>
__device__ inline void sums_before(const Tensors<T>& t, const Job& job, const Tile& tile, const float* d_grad,
                                   float* to, bool add) {
    const int channels = int(job.in_channels), width = int(job.in_width), area = int(job.in_height) * width;
    const float* norm = input_norm(t, job);
    for (int c = warp(); c < channels; c += kWarps) {
        const Normed normed = norm_of(norm, channels, c);
        const float* weights = t.params + job.depthwise + c * K * K;
        ExactSum first, second;
        for (int p = lane(); p < tile.count; p += kLanes) {
            const Pixel pixel = tile.at(p);
            const T* plane = image_of(t, job.input, pixel.image) + c * area;
            float ones = 0, centred = 0;
            each_tap<K>(window_of(job, pixel.y, pixel.x), width, [&](int tap, int place) {
                const float z = to_float(plane[place]);
                if (normed(z) <= 0) return;
                const float weight = K == 1 ? 1 : __ldg(weights + tap);
                ones += weight;
                centred += weight * (z - normed.mean);
            });
            const float grad = d_grad[c * tile.pixels + p];
            first.add(grad * ones);
            second.add(grad * centred);
        }
        const float g_sum = first.over_lanes(), product_sum = second.over_lanes();
        if (lane() == 0) {
            to[c] = add ? to[c] + g_sum : g_sum;
            to[channels + c] = add ? to[channels + c] + product_sum : product_sum;
        }
    }
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

// What the stages of all jobs have in common, for a tile of a part.
template <class T>
struct StageBack {
    const Tensors<T>& t;
    const Job& job;
    TileMemory& memory;
    const int rows, columns;
    float* weight_sums;  // this part's, or null
    float* sums;         // this part's of the stage before, or null

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
        const T* output = kept ? image_of(t, job.output, pixel.image) + tile.offset(pixel) : nullptr;
        for (int c = tile.channel; c < rows; c += tile.step) {
            float& u = memory.u[c * tile.pixels + tile.pixel];
            float result = 0;
            if (tile.inside()) {
                const float value = output != nullptr ? to_float(output[c * tile.area()]) : looks ? u : 0;
                result = NormGrad(t, job, c)(grad(tile, pixel, c, value), value);
            }
            u = result;
        }
    }

    // g: of a last stage what is given, of another, whose u is kept, what comes back from the next through the ReLU.
    __device__ float grad(const Tile& tile, const Pixel& pixel, int c, float u) const {
        if (job.next < 0) return to_float(image_of(t, job.grad, pixel.image)[c * tile.area() + tile.offset(pixel)]);
        if (norm_of(norm_row(t, job), rows, c)(u) <= 0) return 0;
        return gather_transposed(t, reinterpret_cast<const Job*>(t.table)[job.next], pixel, c);
    }

    // ∂d = Wᵀ·∂u over d, rounded, so that all sums are of what is stored; and ∂w of it.
    __device__ void d_grad(const Tile& tile, bool depthwise, bool add) const {
        __syncthreads();  // ∂W has read d
        product(Matrix{t.params + job.pointwise, 1, columns}, columns, rows, tile.pixels, memory.u, memory.d,
                [](int, float& to, float value) { to = rounded<T>(value); });
        __syncthreads();
        if (job.rectify) rectify(tile);
        if (job.grad_gathered.base >= 0) store_tile(t, job.grad_gathered, columns, tile, memory.d);
        if (sums != nullptr) back_to_sums(tile, add);
        if (!depthwise) return;
        float* to = weight_sums + i64(rows) * columns;
        if (job.kernel == 5)
            depthwise_grad<5>(t, job, tile, memory.d, to, add);
        else
            depthwise_grad<3>(t, job, tile, memory.d, to, add);
    }

    __device__ void back_to_sums(const Tile& tile, bool add) const {
        if (job.kernel == 5)
            sums_before<5>(t, job, tile, memory.d, sums, add);
        else if (job.kernel == 3)
            sums_before<3>(t, job, tile, memory.d, sums, add);
        else
            sums_before<1>(t, job, tile, memory.d, sums, add);
    }

    // ∂d of a stage that resamples, and of a 1×1 convolution of stride 1 whose ∂d becomes the gradient of its source.
    __device__ void rectify(const Tile& tile) const {
        if (!tile.inside()) return;
        const Pixel pixel = tile.mine();
        const int offset = tile.offset(pixel);
        if (job.resample)
            rectify(tile, pixel, Resampled(job, pixel));
        else
            rectify(tile, pixel, [=](const T* plane) { return to_float(plane[offset]); });
    }

    // A thread stores what it changes here.
    template <class Value>
    __device__ void rectify(const Tile& tile, const Pixel& pixel, Value value) const {
        const int area = int(job.in_height) * int(job.in_width);
        const T* image = image_of(t, job.input, pixel.image);
        for (int c = tile.channel; c < columns; c += tile.step)
            if (value(image + c * area) <= 0) memory.d[c * tile.pixels + tile.pixel] = 0;
    }
};

// Zeros, if there is such an array.
__device__ inline void clear(float* array, int size) {
    if (array == nullptr) return;
    for (int i = int(threadIdx.x); i < size; i += kThreads) array[i] = 0;
}

// Part p of a job's tiles: p, p + parts, …
template <class T>
__device__ inline void stage_back(const Tensors<T>& t, const Launch& launch, TileMemory& memory) {
    const Job& job = job_of(t, launch.list + blockIdx.y);
    const int rows = int(job.out_channels), columns = int(job.in_channels), part = int(blockIdx.x);
    const int size = columns * (rows + (job.depthwise < 0 ? 0 : int(job.kernel * job.kernel)));
    float* weight_sums = job.weight_sums < 0 ? nullptr : t.floats + job.weight_sums + i64(part) * size;
    float* sums = nullptr;
    if (job.before >= 0)
        sums = t.floats + reinterpret_cast<const Job*>(t.table)[job.before].sums + i64(part) * 2 * columns;
    const int tiles = tiles_of(launch, job);
    if (part >= tiles) {
        clear(weight_sums, size);
        clear(sums, 2 * columns);
    }
    const StageBack<T> stage{t, job, memory, rows, columns, weight_sums, sums};
    for (int number = part; number < tiles; number += launch.grid_x)
        stage.run(Tile(launch, number, job.out_height, job.out_width), number != part);
}

}  // namespace fastnas::gpu
