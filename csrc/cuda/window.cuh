// Convolutions' and pools' windows: which pixels they cover, and sums over them.
#pragma once

#include "block.cuh"

namespace fastnas::gpu {

__device__ inline int inside(int place, int size) {
    return place >= 0 && place < size ? place : -1;
}

// Along one axis, the place that each tap meets; -1 where that is outside, or between two of stride 2.
struct Axis {
    int origin, step, between, size;
    __device__ int operator()(int tap) const {
        const int place = origin + step * tap;
        return place & between ? -1 : inside(place >> between, size);
    }
};

struct Window {
    Axis rows, columns;
};

// What output pixel (y, x) reads.
__device__ inline Window window_of(const Job& job, int y, int x) {
    const int stride = int(job.stride), start = int(job.start), dilation = int(job.dilation);
    return {{stride * y + start, dilation, 0, int(job.in_height)},
            {stride * x + start, dilation, 0, int(job.in_width)}};
}

// The output pixels that read input pixel (y, x), by tap.
__device__ inline Window readers_of(const Job& job, int y, int x) {
    const int start = int(job.start), dilation = int(job.dilation), between = job.stride == 2;
    return {{y - start, -dilation, between, int(job.out_height)}, {x - start, -dilation, between, int(job.out_width)}};
}

// visit(tap, place in the plane) for all K × K taps that are inside. The rows of a large window are not unrolled, which
// would take more registers than it gains, unless `kUnroll` asks for it, for arrays in registers.
template <int K, bool kUnroll = false, class Visit>
__device__ inline void each_tap(const Window& window, int width, Visit visit) {
    int columns[K];
#pragma unroll
    for (int j = 0; j < K; ++j) columns[j] = window.columns(j);
#pragma unroll(K < 5 || kUnroll ? K : 1)
    for (int i = 0; i < K; ++i) {
        const int row = window.rows(i);
#pragma unroll
        for (int j = 0; j < K; ++j)
            if ((row | columns[j]) >= 0) visit(i * K + j, row * width + columns[j]);
    }
}

// Σ over taps of weights[tap]·map(plane[tap]), weights (K, K); a single tap has weight 1.
template <int K, class T, class Map>
__device__ inline float convolve(const Window& window, const T* plane, int width, const float* weights, Map map) {
    float sum = 0;
    each_tap<K>(window, width, [&](int tap, int place) {
        const float value = map(to_float(plane[place]));
        sum += K == 1 ? value : __ldg(weights + tap) * value;
    });
    return sum;
}

// The maximum of a 3×3 window and the tap it is at: the first in scan order; NaN wins, the last of several as in
// PyTorch.
struct Maximum {
    float value;
    int tap;
};

template <class T>
__device__ inline Maximum maximum(const Window& window, const T* plane, int width) {
    Maximum result{0, -1};
    each_tap<3>(window, width, [&](int tap, int place) {
        const float value = to_float(plane[place]);
        if (result.tap < 0 || value > result.value || value != value) result = {value, tap};
    });
    return result;
}

// Taps of a 3×3 window that are inside.
__device__ inline float area(const Window& window) {
    int rows = 0, columns = 0;
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        rows += window.rows(i) >= 0;
        columns += window.columns(i) >= 0;
    }
    return float(rows * columns);
}

// A pool's value at a pixel of a plane.
template <class T>
__device__ inline float pooled(const Job& job, const Window& window, const T* plane) {
    const int width = int(job.in_width);
    if (job.kind == kMaxPool) return maximum(window, plane, width).value;
    float sum = 0;
    each_tap<3>(window, width, [&](int, int place) { sum += to_float(plane[place]); });
    return sum / area(window);
}

}  // namespace fastnas::gpu
