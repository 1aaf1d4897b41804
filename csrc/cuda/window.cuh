// Convolutions' and pools' windows: which pixels they cover, and sums over them.
#pragma once

#include "block.cuh"

namespace fastnas::gpu {

// A pointer to global memory that the compiler takes as given: it would make each address near it anew from the parts.
template <class T>
__device__ inline const T* opaque(const T* pointer) {
#ifdef __CUDA_ARCH__
    asm("" : "+l"(pointer));
    __builtin_assume(__isGlobal(pointer));
#endif
    return pointer;
}

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

// What output pixels read.
struct Reads {
    int stride, start, dilation, height, width;
    __device__ explicit Reads(const Job& job)
        : stride(int(job.stride)),
          start(int(job.start)),
          dilation(int(job.dilation)),
          height(int(job.in_height)),
          width(int(job.in_width)) {}
    __device__ Window operator()(int y, int x) const {
        return {{stride * y + start, dilation, 0, height}, {stride * x + start, dilation, 0, width}};
    }
};

__device__ inline Window window_of(const Job& job, int y, int x) {
    return Reads(job)(y, x);
}

// The output pixels that read input pixel (y, x), by tap.
__device__ inline Window readers_of(const Job& job, int y, int x) {
    const int start = int(job.start), dilation = int(job.dilation), between = job.stride == 2;
    return {{y - start, -dilation, between, int(job.out_height)}, {x - start, -dilation, between, int(job.out_width)}};
}

// visit(i, line, columns) for every row of taps that is inside: where it begins, and each tap's place in it, -1
// outside. The rows of a large window are not unrolled, which would take more registers than it gains, unless `kUnroll`
// asks for it, for arrays in registers.
template <int K, bool kUnroll = false, class T, class Visit>
__device__ inline void each_row(const Window& window, const T* plane, int width, Visit visit) {
    int columns[K];
#pragma unroll
    for (int j = 0; j < K; ++j) columns[j] = window.columns(j);
#pragma unroll(K < 5 || kUnroll ? K : 1)
    for (int i = 0; i < K; ++i) {
        const int row = window.rows(i);
        if (row >= 0) visit(i, opaque(plane + unsigned(row * width)), columns);
    }
}

// visit(tap, value) for all K × K taps of a plane that are inside.
template <int K, bool kUnroll = false, class T, class Visit>
__device__ inline void each_tap(const Window& window, const T* plane, int width, Visit visit) {
    each_row<K, kUnroll>(window, plane, width, [&](int i, const T* line, const int (&columns)[K]) {
#pragma unroll
        for (int j = 0; j < K; ++j)
            if (columns[j] >= 0) visit(i * K + j, to_float(line[unsigned(columns[j])]));
    });
}

// visit(weight, value) for all K × K taps of a plane that are inside, weights (K, K); a single tap has weight 1.
template <int K, class T, class Visit>
__device__ inline void each_weighed(const Window& window, const T* plane, int width, const float* weights,
                                    Visit visit) {
    each_row<K>(window, plane, width, [&](int i, const T* line, const int (&columns)[K]) {
        const float* of_row = opaque(weights + i * K);
#pragma unroll
        for (int j = 0; j < K; ++j)
            if (columns[j] >= 0) visit(K == 1 ? 1 : __ldg(of_row + j), to_float(line[unsigned(columns[j])]));
    });
}

// Σ over taps of weights[tap]·map(plane[tap]).
template <int K, class T, class Map>
__device__ inline float convolve(const Window& window, const T* plane, int width, const float* weights, Map map) {
    float sum = 0;
    each_weighed<K>(window, plane, width, weights, [&](float weight, float x) { sum += weight * map(x); });
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
    each_tap<3>(window, plane, width, [&](int tap, float value) {
        if (result.tap < 0 || value > result.value || value != value) result = {value, tap};
    });
    return result;
}

// Taps of a 3×3 window that are inside.
__device__ inline float area_of(const Window& window) {
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
    each_tap<3>(window, plane, width, [&](int, float value) { sum += value; });
    return sum / area_of(window);
}

}  // namespace fastnas::gpu
