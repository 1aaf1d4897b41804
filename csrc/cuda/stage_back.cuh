// Back through a convolution stage (docs/gpu.md).
#pragma once

#include "backward.cuh"

namespace fastnas::gpu {

struct StageMemory : TileMemory {
    Pixel pixels[kMost];  // of the tile: a channel belongs to a warp below, so each of them needs all
};

// What a warp reads of the job's input in one channel after the other.
template <class T>
struct Input {
    const Reads reads;
    const int channels, width, area;
    const T* const first;
    const i64 image;
    const float* const norm;

    __device__ Input(const Tensors<T>& t, const Job& job)
        : reads(job),
          channels(int(job.in_channels)),
          width(reads.width),
          area(reads.height * width),
          first(image_of(t, job.input, 0)),
          image(job.input.image),
          norm(input_norm(t, job)) {}
    __device__ const T* plane(int c, const Pixel& pixel) const { return first + pixel.image * image + c * area; }
};

// ∂w (C_in, K, K) = or += Σ over a tile's pixels of ∂d·ReLU(x̂). A channel belongs to a warp, whose lanes hold the sums
// of all taps for their own pixels and then add them up.
template <int K, class T>
__device__ inline void depthwise_grad(const Input<T>& input, const Tile& tile, const StageMemory& memory, float* to,
                                      bool add) {
    for (int c = warp(); c < input.channels; c += kWarps) {
        const Normed normed = norm_of(input.norm, input.channels, c);
        float sums[K * K] = {};
        for (int p = lane(); p < tile.count; p += kLanes) {
            const Pixel pixel = memory.pixels[p];
            const float grad = memory.d[c * tile.pixels + p];
            each_tap<K, true>(input.reads(pixel.y, pixel.x), input.plane(c, pixel), input.width,
                              [&](int tap, float x) { sums[tap] += grad * relu(normed(x)); });
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
__device__ inline void sums_before(const Input<T>& input, const float* weights, const Tile& tile,
                                   const StageMemory& memory, float* to, bool add) {
    for (int c = warp(); c < input.channels; c += kWarps) {
        const Normed normed = norm_of(input.norm, input.channels, c);
        ExactSum first, second;
        for (int p = lane(); p < tile.count; p += kLanes) {
            const Pixel pixel = memory.pixels[p];
            float ones = 0, centred = 0;
            each_weighed<K>(input.reads(pixel.y, pixel.x), input.plane(c, pixel), input.width, weights + c * K * K,
                            [&](float weight, float z) {
                                if (normed(z) <= 0) return;
                                ones += weight;
                                centred += weight * (z - normed.mean);
                            });
            const float grad = memory.d[c * tile.pixels + p];
            first.add(grad * ones);
            second.add(grad * centred);
        }
        const float g_sum = first.over_lanes(), product_sum = second.over_lanes();
        if (lane() == 0) {
            to[c] = add ? to[c] + g_sum : g_sum;
            to[input.channels + c] = add ? to[input.channels + c] + product_sum : product_sum;
        }
    }
}

// The transposed gather of ∂d at an input pixel, by channel.
template <class T>
struct Transposed {
    const Window readers;
    const int kernel, width, area;
    const T* const planes;
    const float* const weights;

    __device__ Transposed(const Tensors<T>& t, const Job& job, const Pixel& pixel)
        : readers(readers_of(job, pixel.y, pixel.x)),
          kernel(int(job.kernel)),
          width(int(job.out_width)),
          area(int(job.out_height) * width),
          planes(image_of(t, job.grad_gathered, pixel.image)),
          weights(t.params + job.depthwise) {}
    __device__ float operator()(int c) const {
        if (kernel == 5) return gathered<5>(c);
        if (kernel == 3) return gathered<3>(c);
        return gathered<1>(c);
    }

  private:
    template <int K>
    __device__ float gathered(int c) const {
        const auto same = [](float value) { return value; };
        return convolve<K>(readers, planes + c * area, width, weights + c * K * K, same);
    }
};

// What the stages of all jobs have in common, for a tile of a part.
template <class T>
struct StageBack {
    const Tensors<T>& t;
    const Job& job;
    StageMemory& memory;
    const int rows, columns;
    float* weight_sums;  // this part's, or null
    float* sums;         // this part's of the stage before, or null

    __device__ void run(const Tile& tile, bool add) const {
        const bool looks = job.batch, kept = job.output.base >= 0;
        if (int(threadIdx.x) < tile.count) memory.pixels[threadIdx.x] = tile.at(int(threadIdx.x));
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

    // ∂u over u, where g of a last stage is what is given, of another, whose u is kept, what comes back from the next
    // through the ReLU.
    __device__ void u_grad(const Tile& tile, bool looks, bool kept) const {
        const Pixel pixel = tile.mine();
        const T* output = kept ? image_of(t, job.output, pixel.image) + tile.offset(pixel) : nullptr;
        if (job.next < 0) {
            const T* given = image_of(t, job.grad, pixel.image) + tile.offset(pixel);
            u_grad(tile, looks, output, [&](int c, float) { return to_float(given[c * tile.area()]); });
        } else {
            const Transposed<T> next(t, reinterpret_cast<const Job*>(t.table)[job.next], pixel);
            const float* norm = norm_row(t, job);
            u_grad(tile, looks, output, [&](int c, float u) { return norm_of(norm, rows, c)(u) <= 0 ? 0 : next(c); });
        }
    }

    // A thread reads what it overwrites and nothing else.
    template <class Grad>
    __device__ void u_grad(const Tile& tile, bool looks, const T* output, Grad grad) const {
        const NormGrads norm_grads(t, job);
        for (int c = tile.channel; c < rows; c += tile.step) {
            float& u = memory.u[c * tile.pixels + tile.pixel];
            float result = 0;
            if (tile.inside()) {
                const float value = output != nullptr ? to_float(output[c * tile.area()]) : looks ? u : 0;
                result = norm_grads(c)(grad(c, value), value);
            }
            u = result;
        }
    }

    // ∂d = Wᵀ·∂u over d, rounded, so that all sums are of what is stored; and ∂w of it.
    __device__ void d_grad(const Tile& tile, bool depthwise, bool add) const {
        __syncthreads();  // ∂W has read d
        product(Matrix{t.params + job.pointwise, 1, columns}, columns, rows, tile.pixels, memory.u, memory.d,
                [](int, float& to, float value) { to = rounded<T>(value); });
        __syncthreads();
        if (job.rectify) rectify(tile);
        if (job.grad_gathered.base >= 0) store_tile(t, job.grad_gathered, columns, tile, memory.d);
        const Input<T> input(t, job);
        if (sums != nullptr) back_to_sums(input, tile, add);
        if (!depthwise) return;
        float* to = weight_sums + i64(rows) * columns;
        if (job.kernel == 5)
            depthwise_grad<5>(input, tile, memory, to, add);
        else
            depthwise_grad<3>(input, tile, memory, to, add);
    }

    __device__ void back_to_sums(const Input<T>& input, const Tile& tile, bool add) const {
        const float* weights = t.params + job.depthwise;
        if (job.kernel == 5)
            sums_before<5>(input, weights, tile, memory, sums, add);
        else if (job.kernel == 3)
            sums_before<3>(input, weights, tile, memory, sums, add);
        else
            sums_before<1>(input, weights, tile, memory, sums, add);
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
__device__ inline void stage_back(const Tensors<T>& t, const Launch& launch, StageMemory& memory) {
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
