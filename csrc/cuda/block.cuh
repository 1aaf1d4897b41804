// What a block works on: a tile of pixels with all their channels, and where these lie.
#pragma once

#include "../gpu/job.h"
#include "scalar.cuh"

#ifndef FASTNAS_THREADS
#define FASTNAS_THREADS 128
#endif

namespace fastnas::gpu {

constexpr int kThreads = FASTNAS_THREADS;
constexpr int kLanes = 32;
constexpr int kWarps = kThreads / kLanes;
constexpr int kElements = 16 * kThreads;     // pixels × channels of a tile at most
constexpr int kLeast = 4, kMost = kThreads;  // pixels of a tile, a power of two
constexpr int kChannels = kElements / kLeast;

// Tensors of a call, each argument of every kernel.
template <class T>
struct Tensors {
    T* bases[kBases];
    const float* params;
    float* floats;
    float* statistics;
    float* grads;
    const i64* table;
};

// d (C_in, pixels) and u (C_out, pixels) of a tile.
struct TileMemory {
    alignas(16) float d[kElements];
    alignas(16) float u[kElements];
};

template <class T>
__device__ inline const Job& job_of(const Tensors<T>& t, i64 place) {
    return reinterpret_cast<const Job*>(t.table)[t.table[place]];
}

template <class T>
__device__ inline const State& state_of(const Tensors<T>& t, const Launch& launch) {
    return *reinterpret_cast<const State*>(t.table + launch.state);
}

// An image of a view, its first channel. A comparison with each base keeps the argument out of local memory, where an
// index would put it.
template <class T>
__device__ inline T* image_of(const Tensors<T>& t, const View& view, int image) {
    const int number = int(view.base);
    T* base = t.bases[0];
#pragma unroll
    for (int i = 1; i < kBases; ++i)
        if (i == number) base = t.bases[i];
    return base + view.offset + image * view.image;
}

// Pixel number `index` of all images: of N·H·W, fewer than 2^31.
struct Pixel {
    int image, y, x;
};

__device__ inline Pixel pixel_at(int index, int height, int width) {
    const unsigned rows = unsigned(index) / unsigned(width);
    const int x = int(unsigned(index) - rows * unsigned(width)), image = int(rows / unsigned(height));
    return {image, int(rows) - image * height, x};
}

// A tile of images of H × W, and the column of it that is this thread's: one pixel and every `step`-th channel, so that
// neighbouring threads have neighbouring pixels.
struct Tile {
    int pixels, first, count;  // how many fit, the first's number, how many there are
    int height, width;
    int pixel, channel, step;

    __device__ Tile(const Launch& launch, int number, i64 height_, i64 width_)
        : pixels(launch.tile),
          first(number * launch.tile),
          height(int(height_)),
          width(int(width_)),
          pixel(int(threadIdx.x) & (launch.tile - 1)),
          channel(int(threadIdx.x) / launch.tile),
          step(kThreads / launch.tile) {
        const int left = launch.images * height * width - first;
        count = left < pixels ? left : pixels;
    }
    __device__ bool empty() const { return count <= 0; }
    __device__ bool inside() const { return pixel < count; }
    __device__ int area() const { return height * width; }
    __device__ Pixel at(int i) const { return pixel_at(first + i, height, width); }
    __device__ Pixel mine() const { return at(inside() ? pixel : 0); }
    __device__ int offset(const Pixel& p) const { return p.y * width + p.x; }
};

__device__ inline int tiles_of(const Launch& launch, const Job& job) {
    const int pixels = launch.images * int(job.out_height) * int(job.out_width);
    return (pixels + launch.tile - 1) / launch.tile;
}

// Batch norm of a channel; that of none leaves numbers as they are.
struct Normed {
    float mean, scale, shift;
    __device__ float operator()(float value) const { return (value - mean) * scale + shift; }
};

__device__ inline Normed norm_of(const float* norm, int channels, int channel) {
    if (norm == nullptr) return {0, 1, 0};
    return {norm[channel], norm[channels + channel], norm[2 * channels + channel]};
}

__device__ inline float relu(float value) {
    return value < 0 ? 0 : value;
}

__device__ inline float param_or(const float* params, i64 place, float otherwise) {
    return place < 0 ? otherwise : params[place];
}

}  // namespace fastnas::gpu
