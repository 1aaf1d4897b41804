// The gradient of a state, from those of all that reads it (docs/gpu.md).
#pragma once

#include "stage_back.cuh"

namespace fastnas::gpu {

// What lies around an input pixel of a plane, and in it all 3×3 windows that hold the pixel: the window of tap (i, j)
// of its output has its centre at (1 - i, 1 - j) from here.
struct Around {
    float values[5][5];
    unsigned inside = 0;  // a bit each

    template <class T>
    __device__ Around(const T* plane, int y, int x, int height, int width) {
#pragma unroll
        for (int i = 0; i < 5; ++i) {
            const int row = y + i - 2;
            const T* line = opaque(plane + i64(row) * width + (x - 2));
#pragma unroll
            for (int j = 0; j < 5; ++j) {
                const bool there = row >= 0 && row < height && x + j >= 2 && x + j - 2 < width;
                values[i][j] = there ? to_float(line[j]) : 0;
                inside |= unsigned(there) << (5 * i + j);
            }
        }
    }
    __device__ bool has(int i, int j) const { return inside >> (5 * i + j) & 1; }

    // Whether the pixel is what max pooling takes of the window of this tap (`maximum` in window.cuh).
    __device__ bool is_maximum(int tap_row, int tap_column) const {
        const float own = values[2][2];
        bool first = true;
#pragma unroll
        for (int i = 0; i < 3; ++i)
#pragma unroll
            for (int j = 0; j < 3; ++j) {
                const bool earlier = 3 * i + j < 3 * tap_row + tap_column;
                if (i == tap_row && j == tap_column) continue;
                const float other = values[2 - tap_row + i][2 - tap_column + j];
                const bool wins = other != other ? own == own || !earlier : earlier ? other >= own : other > own;
                if (wins && has(2 - tap_row + i, 2 - tap_column + j)) first = false;
            }
        return first;
    }
    __device__ float mean(int tap_row, int tap_column) const {
        float sum = 0;
        int count = 0;
#pragma unroll
        for (int i = 0; i < 3; ++i)
#pragma unroll
            for (int j = 0; j < 3; ++j) {
                sum += values[2 - tap_row + i][2 - tap_column + j];
                count += has(2 - tap_row + i, 2 - tap_column + j);
            }
        return sum / float(count);
    }
};

// A state's gradient in one pixel and a thread's channels: what each job that reads the state adds.
template <class T>
struct SourceBack {
    const Tensors<T>& t;
    const Tile& tile;
    const Pixel pixel;
    const T* const own;  // the state's pixel in its first channel, where a job looks at it
    float* const sums;
    const int channels;

    template <class Value>
    __device__ void add(Value value) const {
        for (int c = tile.channel; c < channels; c += tile.step) sums[c * tile.pixels] += value(c);
    }

    __device__ void add(const Job& job) const {
        if (job.kind == kIdentity) {
            const float alpha = param_or(t.params, job.alpha, 1);
            const T* grads = image_of(t, job.grad, pixel.image) + tile.offset(pixel);
            add([&](int c) { return alpha * to_float(grads[c * tile.area()]); });
        } else if (job.resample) {
            const int area = int(job.out_height * job.out_width);
            const T* grads = image_of(t, job.grad_gathered, pixel.image);
            add([&](int c) { return resample_transposed(job, pixel, grads + c * area); });
        } else if (job.kind == kConvolution) {
            const Transposed<T> grads(t, job, pixel);
            add([&](int c) { return to_float(own[c * tile.area()]) <= 0 ? 0 : grads(c); });
        } else if (job.kind == kMaxPool) {
            add_pools<true>(job);
        } else {
            add_pools<false>(job);
        }
    }

    // What the windows that hold the pixel give it, of all edges that pool so: a·g + b·(u - mean) + c each.
    template <bool kMax>
    __device__ void add_pools(const Job& leader) const {
        const Window readers = readers_of(leader, pixel.y, pixel.x);
        const int width = int(leader.out_width), area = int(leader.out_height) * width;
        int places[9];
        float shares[9];
#pragma unroll
        for (int tap = 0; tap < 9; ++tap) {
            const int row = readers.rows(tap / 3), column = readers.columns(tap % 3);
            places[tap] = (row | column) < 0 ? -1 : row * width + column;
            shares[tap] = kMax || places[tap] < 0 ? 1 : 1 / area_of(window_of(leader, row, column));
        }
        add([&](int c) {
            const T* plane = own - tile.offset(pixel) + c * tile.area();
            const Around around(plane, pixel.y, pixel.x, tile.height, tile.width);
            float u[9];
            unsigned reads = 0;
#pragma unroll
            for (int tap = 0; tap < 9; ++tap) {
                u[tap] = kMax ? around.values[2][2] : rounded<T>(around.mean(tap / 3, tap % 3));
                const bool counts = places[tap] >= 0 && (!kMax || around.is_maximum(tap / 3, tap % 3));
                reads |= unsigned(counts) << tap;
            }
            float sum = 0;
#pragma unroll 1
            for (int i = 0; i < int(leader.member_count); ++i) {
                const Job& job = job_of(t, leader.members + i);
                const NormGrad grad = NormGrads(t, job)(c);
                const T* grads = image_of(t, job.grad, pixel.image) + c * area;
#pragma unroll
                for (int tap = 0; tap < 9; ++tap)
                    if (reads >> tap & 1) sum += shares[tap] * grad(to_float(grads[unsigned(places[tap])]), u[tap]);
            }
            return sum;
        });
    }
};

struct SumsMemory {
    float sums[kElements];
};

// A state's gradient: what is given of it, and Σ over the jobs that read it. A thread has sums of its own.
template <class T>
__device__ inline void source_back(const Tensors<T>& t, const Launch& launch, SumsMemory& memory) {
    const State& state = state_of(t, launch);
    const Tile tile(launch, int(blockIdx.x), state.height, state.width);
    if (!tile.inside()) return;
    const Pixel pixel = tile.mine();
    const int place = tile.offset(pixel), area = tile.area(), channels = int(state.channels);
    float* sums = memory.sums + tile.pixel;
    const T* given = state.given.base < 0 ? nullptr : image_of(t, state.given, pixel.image) + place;
    for (int c = tile.channel; c < channels; c += tile.step)
        sums[c * tile.pixels] = given == nullptr ? 0 : to_float(given[c * area]);
    const SourceBack<T> back{t, tile, pixel, image_of(t, state.value, pixel.image) + place, sums, channels};
    for (int i = 0; i < launch.count; ++i) back.add(job_of(t, launch.list + i));
    T* grad = image_of(t, state.grad, pixel.image) + place;
    for (int c = tile.channel; c < channels; c += tile.step) grad[c * area] = from_float<T>(sums[c * tile.pixels]);
}

}  // namespace fastnas::gpu
