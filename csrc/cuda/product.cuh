// The 1×1 convolution on a tile in shared memory, and its derivatives: small matrix products.
#pragma once

#include "sums.cuh"

namespace fastnas::gpu {

constexpr int kBlock = 4;  // a thread holds kBlock × kBlock sums in registers

// A matrix in global memory, or its transpose.
struct Matrix {
    const float* values;
    int row_stride, column_stride;
    __device__ const float* row(int i) const { return values + i * row_stride; }
};

__device__ inline int at_most(int i, int most) {
    return i < most ? i : most;
}

// combine(row, to, value) for every element `to` of out (rows, pixels), with value of
// matrix (rows, columns) · in (columns, pixels).
template <class Combine>
__device__ inline void product(const Matrix& matrix, int rows, int columns, int pixels, const float* in, float* out,
                               Combine combine) {
    const int across = pixels / kBlock, down = (rows + kBlock - 1) / kBlock;
    for (int item = int(threadIdx.x); item < across * down; item += kThreads) {
        const int p = item % across * kBlock, first = item / across * kBlock;
        const float* weights[kBlock];
        float sums[kBlock][kBlock] = {};
#pragma unroll
        for (int i = 0; i < kBlock; ++i) weights[i] = matrix.row(at_most(first + i, rows - 1));
#pragma unroll 2
        for (int k = 0; k < columns; ++k) {
            const float4 x = *reinterpret_cast<const float4*>(in + k * pixels + p);
#pragma unroll
            for (int i = 0; i < kBlock; ++i) {
                const float weight = __ldg(weights[i] + k * matrix.column_stride);
                sums[i][0] += weight * x.x;
                sums[i][1] += weight * x.y;
                sums[i][2] += weight * x.z;
                sums[i][3] += weight * x.w;
            }
        }
#pragma unroll
        for (int i = 0; i < kBlock; ++i)
            if (first + i < rows) {
                float4& to = *reinterpret_cast<float4*>(out + (first + i) * pixels + p);
                float4 result = to;
                combine(first + i, result.x, sums[i][0]);
                combine(first + i, result.y, sums[i][1]);
                combine(first + i, result.z, sums[i][2]);
                combine(first + i, result.w, sums[i][3]);
                to = result;
            }
    }
}

// to (rows, columns) = or += a (rows, pixels) · b (columns, pixels)ᵀ
//
// A group of neighbouring lanes, a power of two, shares kBlock × kBlock sums, each lane with its own pixels, four at a
// time; where to begin differs from group to group, for rows of a tile lie in the same banks. An element of `to`
// belongs to one thread, the same for every tile.
__device__ inline void weight_grad(int rows, int columns, int pixels, const float* a, const float* b, float* to,
                                   bool add) {
    const int across = (columns + kBlock - 1) / kBlock, down = (rows + kBlock - 1) / kBlock;
    const int quads = pixels / 4;
    int group = 1;
    while (group < quads && group < kLanes && 2 * group * across * down <= kThreads) group *= 2;
    for (int start = 0; start < across * down * group; start += kThreads) {
        const int thread = start + int(threadIdx.x), item = at_most(thread / group, across * down - 1);
        const int first_row = item / across * kBlock, first_column = item % across * kBlock;
        float sums[kBlock][kBlock] = {};
        for (int turn = 0; turn < quads; turn += group) {
            const int p = 4 * ((thread % group + turn + item * group) & (quads - 1));
            float4 x[kBlock], y[kBlock];
#pragma unroll
            for (int i = 0; i < kBlock; ++i) {
                x[i] = *reinterpret_cast<const float4*>(a + at_most(first_row + i, rows - 1) * pixels + p);
                y[i] = *reinterpret_cast<const float4*>(b + at_most(first_column + i, columns - 1) * pixels + p);
            }
#pragma unroll
            for (int i = 0; i < kBlock; ++i)
#pragma unroll
                for (int j = 0; j < kBlock; ++j)
                    sums[i][j] += x[i].x * y[j].x + x[i].y * y[j].y + x[i].z * y[j].z + x[i].w * y[j].w;
        }
        const bool owner = thread % group == 0 && thread < across * down * group;
#pragma unroll
        for (int i = 0; i < kBlock; ++i)
#pragma unroll
            for (int j = 0; j < kBlock; ++j) {
                const float sum = sum_lanes(sums[i][j], group);
                if (!owner || first_row + i >= rows || first_column + j >= columns) continue;
                float& element = to[(first_row + i) * columns + first_column + j];
                element = add ? element + sum : sum;
            }
    }
}

}  // namespace fastnas::gpu
