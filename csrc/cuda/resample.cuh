// Bilinear resampling of a plane to another size, corners' pixels on each other, and its transpose (docs/gpu.md).
// Places are exact: along an axis that goes from `before` to `after` pixels, output i lies at i·(before - 1)/(after -
// 1).
#pragma once

#include "block.cuh"

namespace fastnas::gpu {

// Along one axis, the two inputs that an output lies between, and the share of the second.
struct Between {
    int first, step;
    float share;
    __device__ Between(int place, int before, int after) {
        const unsigned steps = unsigned(after > 1 ? after - 1 : 1), along = unsigned(place) * unsigned(before - 1);
        first = int(along / steps);
        step = first + 1 < before;
        share = float(along - unsigned(first) * steps) / float(steps);
    }
};

// What a stage that resamples sees of a plane at an output pixel.
class Resampled {
  public:
    __device__ Resampled(const Job& job, const Pixel& pixel) {
        const Between rows(pixel.y, int(job.in_height), int(job.out_height));
        const Between columns(pixel.x, int(job.in_width), int(job.out_width));
        corner_ = rows.first * int(job.in_width) + columns.first;
        down_ = rows.step * int(job.in_width);
        right_ = columns.step;
        lower_ = rows.share;
        later_ = columns.share;
    }

    // All four neighbours count, also with share 0: as in PyTorch, NaN spreads to what lies beside it.
    template <class T>
    __device__ float operator()(const T* plane) const {
        plane += corner_;
        return (1 - lower_) * line(plane) + lower_ * line(plane + down_);
    }

  private:
    template <class T>
    __device__ float line(const T* values) const {
        return (1 - later_) * to_float(values[0]) + later_ * to_float(values[right_]);
    }

    int corner_, down_, right_;
    float lower_, later_;
};

// Along one axis, the outputs that have an input between their two, and the input's share of each.
struct Readers {
    int first, last;
    __device__ Readers(int place_, int before, int after)
        : place(place_), size(before - 1), steps(after > 1 ? after - 1 : 1) {
        first = place > 0 ? (place - 1) * steps / size + 1 : 0;
        const int end = size > 0 ? ((place + 1) * steps - 1) / size : after - 1;
        last = end < after ? end : after - 1;
    }
    __device__ float share(int output) const {
        const int apart = output * size - place * steps;
        return 1 - float(apart < 0 ? -apart : apart) / float(steps);
    }

  private:
    int place, size, steps;
};

// What an input pixel of a plane receives of the outputs' gradients.
template <class T>
__device__ inline float resample_transposed(const Job& job, const Pixel& pixel, const T* grads) {
    const int width = int(job.out_width);
    const Readers rows(pixel.y, int(job.in_height), int(job.out_height));
    const Readers columns(pixel.x, int(job.in_width), int(job.out_width));
    float sum = 0;
#pragma unroll 1
    for (int y = rows.first; y <= rows.last; ++y) {
        float line = 0;
#pragma unroll 1
        for (int x = columns.first; x <= columns.last; ++x) line += columns.share(x) * to_float(grads[y * width + x]);
        sum += rows.share(y) * line;
    }
    return sum;
}

}  // namespace fastnas::gpu
