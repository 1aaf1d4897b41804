// Convolutions' and pools' windows: which pixels they cover, and sums over them.
#pragma once

#include "block.cuh"

namespace fastnas::gpu {

// K rows and K columns of an image, -1 where they are outside.
template <int K>
struct Window {
    int rows[K], columns[K];
    __device__ bool has(int i, int j) const { return (rows[i] | columns[j]) >= 0; }
};

__device__ inline int inside(int place, int size) {
    return place >= 0 && place < size ? place : -1;
}

// What output pixel (y, x) reads.
template <int K>
__device__ inline Window<K> window_of(const Job& job, int y, int x) {
    const int stride = int(job.stride), start = int(job.start), dilation = int(job.dilation);
    Window<K> window;
#pragma unroll
    for (int i = 0; i < K; ++i) {
        window.rows[i] = inside(stride * y + start + dilation * i, int(job.in_height));
        window.columns[i] = inside(stride * x + start + dilation * i, int(job.in_width));
    }
    return window;
}

// The output pixel that reads `place` through tap `tap`, of one axis.
__device__ inline int reader(const Job& job, int place, int tap, int size) {
    const int ahead = place - int(job.start) - int(job.dilation) * tap;
    if (job.stride == 1) return inside(ahead, size);
    return ahead & 1 ? -1 : inside(ahead >> 1, size);
}

// The output pixels that read input pixel (y, x), by tap.
template <int K>
__device__ inline Window<K> readers_of(const Job& job, int y, int x) {
    Window<K> window;
#pragma unroll
    for (int i = 0; i < K; ++i) {
        window.rows[i] = reader(job, y, i, int(job.out_height));
        window.columns[i] = reader(job, x, i, int(job.out_width));
    }
    return window;
}

// Σ over taps of weights[tap]·map(plane[tap]), weights (K, K); a single tap has weight 1.
template <int K, class T, class Map>
__device__ inline float convolve(const Window<K>& window, const T* plane, int width, const float* weights, Map map) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < K; ++i)
#pragma unroll
        for (int j = 0; j < K; ++j)
            if (window.has(i, j)) {
                const float value = map(to_float(plane[window.rows[i] * width + window.columns[j]]));
                sum += K == 1 ? value : __ldg(weights + i * K + j) * value;
            }
    return sum;
}

// The maximum of a 3×3 window and the tap it is at: the first in scan order; NaN wins, the last of several as in
// PyTorch.
struct Maximum {
    float value;
    int tap;
};

template <class T>
__device__ inline Maximum maximum(const Window<3>& window, const T* plane, int width) {
    Maximum result{0, -1};
#pragma unroll
    for (int i = 0; i < 3; ++i)
#pragma unroll
        for (int j = 0; j < 3; ++j)
            if (window.has(i, j)) {
                const float value = to_float(plane[window.rows[i] * width + window.columns[j]]);
                if (result.tap < 0 || value > result.value || value != value) result = {value, i * 3 + j};
            }
    return result;
}

// Taps of a 3×3 window that are inside.
__device__ inline float area(const Window<3>& window) {
    int rows = 0, columns = 0;
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        rows += window.rows[i] >= 0;
        columns += window.columns[i] >= 0;
    }
    return float(rows * columns);
}

// A pool's value at a pixel of a plane.
template <class T>
__device__ inline float pooled(const Job& job, const Window<3>& window, const T* plane) {
    const int width = int(job.in_width);
    if (job.kind == kMaxPool) return maximum(window, plane, width).value;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 3; ++i)
#pragma unroll
        for (int j = 0; j < 3; ++j)
            if (window.has(i, j)) sum += to_float(plane[window.rows[i] * width + window.columns[j]]);
    return sum / area(window);
}

// The transposed pool: what input pixel (y, x) receives of the gradient of its plane's pooled values.
template <class T>
__device__ inline float pool_transposed(const Job& job, int y, int x, const T* plane, const T* grad) {
    float sum = 0;
#pragma unroll 1
    for (int i = 0; i < 3; ++i)
#pragma unroll 1
        for (int j = 0; j < 3; ++j) {
            const int row = reader(job, y, i, int(job.out_height)), column = reader(job, x, j, int(job.out_width));
            if ((row | column) < 0) continue;
            const Window<3> window = window_of<3>(job, row, column);
            const float g = to_float(grad[row * int(job.out_width) + column]);
            if (job.kind == kAvgPool)
                sum += g / area(window);
            else if (maximum(window, plane, int(job.in_width)).tap == i * 3 + j)
                sum += g;
        }
    return sum;
}

}  // namespace fastnas::gpu
