// d and u of a job on a tile.
#pragma once

#include "product.cuh"
#include "resample.cuh"
#include "window.cuh"

namespace fastnas::gpu {

template <class T>
__device__ inline const float* input_norm(const Tensors<T>& t, const Job& job) {
    return job.input_norm < 0 ? nullptr : t.floats + job.input_norm;
}

template <class T>
__device__ inline const float* norm_row(const Tensors<T>& t, const Job& job) {
    return job.norm < 0 ? nullptr : t.floats + job.norm;
}

// d = w ∗ ReLU(x̂), 0 beyond the last pixel.
template <int K, class T>
__device__ inline void gather(const Tensors<T>& t, const Job& job, const Tile& tile, float* d) {
    const Pixel pixel = tile.mine();
    const Window window = window_of(job, pixel.y, pixel.x);
    const int channels = int(job.in_channels), width = int(job.in_width), area = int(job.in_height) * width;
    const T* image = image_of(t, job.input, pixel.image);
    const float *norm = input_norm(t, job), *weights = t.params + job.depthwise;
    for (int c = tile.channel; c < channels; c += tile.step) {
        const Normed normed = norm_of(norm, channels, c);
        d[c * tile.pixels + tile.pixel] = tile.inside()
                                              ? convolve<K>(window, image + c * area, width, weights + c * K * K,
                                                            [&](float x) { return relu(normed(x)); })
                                              : 0;
    }
}

// d = ReLU of the resampled state, 0 beyond the last pixel.
template <class T>
__device__ inline void resample(const Tensors<T>& t, const Job& job, const Tile& tile, float* d) {
    const Pixel pixel = tile.mine();
    const Resampled resampled(job, pixel);
    const int area = int(job.in_height) * int(job.in_width);
    const T* image = image_of(t, job.input, pixel.image);
#pragma unroll 1
    for (int c = tile.channel; c < int(job.in_channels); c += tile.step)
        d[c * tile.pixels + tile.pixel] = tile.inside() ? relu(resampled(image + c * area)) : 0;
}

template <class T>
__device__ inline void gather(const Tensors<T>& t, const Job& job, const Tile& tile, float* d) {
    if (job.kernel == 5)
        gather<5>(t, job, tile, d);
    else if (job.kernel == 3)
        gather<3>(t, job, tile, d);
    else if (job.resample)
        resample(t, job, tile, d);
    else
        gather<1>(t, job, tile, d);
}

// combine(channel, to, value) with what a pool or an identity makes of the input, where it is inside.
template <class T, class Combine>
__device__ inline void pass_on(const Tensors<T>& t, const Job& job, const Tile& tile, float* u, Combine combine) {
    if (!tile.inside()) return;
    const Pixel pixel = tile.mine();
    const T* image = image_of(t, job.input, pixel.image);
    const int area = int(job.in_height) * int(job.in_width);
    const Window window = window_of(job, pixel.y, pixel.x);
    for (int c = tile.channel; c < int(job.out_channels); c += tile.step) {
        const T* plane = image + c * area;
        combine(c, u[c * tile.pixels + tile.pixel],
                job.kind == kIdentity ? to_float(plane[tile.offset(pixel)]) : pooled(job, window, plane));
    }
}

// combine(channel, to, u) for every element `to` of rows (C_out, pixels), u rounded to T; and d of a convolution.
// Begins as if no other thread still read either, and ends with a barrier.
template <class T, class Combine>
__device__ inline void each_value(const Tensors<T>& t, const Job& job, const Tile& tile, float* d, float* rows,
                                  Combine combine) {
    const auto round = [&](int c, float& to, float u) { combine(c, to, rounded<T>(u)); };
    if (job.kind == kConvolution) {
        const int out_channels = int(job.out_channels), in_channels = int(job.in_channels);
        gather(t, job, tile, d);
        __syncthreads();
        product(Matrix{t.params + job.pointwise, in_channels, 1}, out_channels, in_channels, tile.pixels, d, rows,
                round);
    } else {
        pass_on(t, job, tile, rows, round);
    }
    __syncthreads();
}

// The same with u from where it is kept.
template <class T, class Combine>
__device__ inline void each_kept(const Tensors<T>& t, const Job& job, const Tile& tile, float* rows, Combine combine) {
    if (tile.inside()) {
        const Pixel pixel = tile.mine();
        const T* output = image_of(t, job.output, pixel.image) + tile.offset(pixel);
        for (int c = tile.channel; c < int(job.out_channels); c += tile.step)
            combine(c, rows[c * tile.pixels + tile.pixel], to_float(output[c * tile.area()]));
    }
    __syncthreads();
}

// u, rounded to T, and of a convolution d.
template <class T>
__device__ inline void values(const Tensors<T>& t, const Job& job, const Tile& tile, TileMemory& memory) {
    each_value(t, job, tile, memory.d, memory.u, [](int, float& to, float u) { to = u; });
}

// Rows of a tile from a view, 0 beyond the last pixel; and to a view.
template <class T>
__device__ inline void load_tile(const Tensors<T>& t, const View& view, int channels, const Tile& tile, float* rows) {
    const Pixel pixel = tile.mine();
    const T* image = image_of(t, view, pixel.image) + tile.offset(pixel);
    for (int c = tile.channel; c < channels; c += tile.step)
        rows[c * tile.pixels + tile.pixel] = tile.inside() ? to_float(image[c * tile.area()]) : 0;
}

template <class T>
__device__ inline void store_tile(const Tensors<T>& t, const View& view, int channels, const Tile& tile,
                                  const float* rows) {
    if (!tile.inside()) return;
    const Pixel pixel = tile.mine();
    T* image = image_of(t, view, pixel.image) + tile.offset(pixel);
    for (int c = tile.channel; c < channels; c += tile.step)
        image[c * tile.area()] = from_float<T>(rows[c * tile.pixels + tile.pixel]);
}

}  // namespace fastnas::gpu
