// Weights in the order in which the kernels read them, and gradients back from it.
#pragma once

#include <algorithm>
#include <cstddef>

#include "kernels.h"

namespace fastnas {

inline int blocks_of(int channels, int lanes) {
    return (channels + lanes - 1) / lanes;
}

// A matrix for `pointwise`: (blocks of output channels, columns, L). Output channel first_row + i has row i of the
// given matrix (rows, columns), or of its transpose if that is given as (columns, rows); other channels are zero.
template <class T>
void pack_pointwise(const Kernels<T>& k, const T* weight, int rows, int columns, bool transposed, int first_row,
                    int all_rows, T* out) {
    const std::ptrdiff_t row_step = transposed ? 1 : columns, column_step = transposed ? rows : 1;
    const int lanes = k.lanes;
    for (int b = 0; b < blocks_of(all_rows, lanes); ++b, out += std::ptrdiff_t(columns) * lanes) {
        const int first = b * lanes - first_row, last = std::min(first + lanes, rows);
        if (first >= 0 && last > first) {
            k.load(weight + first * row_step, row_step, columns * column_step, column_step, last - first, {1, columns},
                   out);
            continue;
        }
        std::fill_n(out, std::ptrdiff_t(columns) * lanes, T(0));
        for (int row = std::max(first, 0); row < last; ++row)
            for (int c = 0; c < columns; ++c)
                out[std::ptrdiff_t(c) * lanes + row - first] = weight[row * row_step + c * column_step];
    }
}

inline std::size_t packed_pointwise_size(int columns, int rows, int lanes) {
    return std::size_t(columns) * blocks_of(rows, lanes) * lanes;
}

// Adds up `threads` copies of sums, `stride` apart, into the first.
template <class T>
void add_up(T* sums, std::size_t count, std::size_t stride, int threads) {
    for (int t = 1; t < threads; ++t)
        for (std::size_t i = 0; i < count; ++i) sums[i] += sums[t * stride + i];
}

// The gradient of a matrix (rows, columns) from what `pointwise_weight_grad` left: (blocks of output channels, blocks
// of columns · L, L), where row i belongs to output channel first_row + i.
template <class T>
void unpack_pointwise_grad(const Kernels<T>& k, const T* sums, int first_row, int rows, int columns, T* grad) {
    const int lanes = k.lanes;
    const std::ptrdiff_t block = std::ptrdiff_t(blocks_of(columns, lanes)) * lanes * lanes;
    for (int row = 0; row < rows;) {
        const int channel = first_row + row, lane = channel % lanes, count = std::min(lanes - lane, rows - row);
        const T* from = sums + channel / lanes * block;
        if (lane == 0) k.store(from, count, {1, columns}, grad + std::ptrdiff_t(row) * columns, columns, columns, 1);
        for (int i = 0; lane > 0 && i < count; ++i)
            for (int c = 0; c < columns; ++c)
                grad[std::ptrdiff_t(row + i) * columns + c] = from[std::ptrdiff_t(c) * lanes + lane + i];
        row += count;
    }
}

// (C, 1, K, K) to (blocks, K·K, L). For the transposed convolution (`grad`) columns run backwards, and at stride 2
// those that meet even pixels come before those that meet odd ones.
template <class T>
void pack_depthwise(const T* weight, int channels, int kernel, int dilation, int stride, bool grad, int lanes, T* out) {
    const int radius = kernel / 2;
    for (int block = 0; block < blocks_of(channels, lanes); ++block)
        for (int ky = 0; ky < kernel; ++ky) {
            const auto column = [&](int kx) {
                for (int lane = 0; lane < lanes; ++lane) {
                    const int c = block * lanes + lane;
                    *out++ = c < channels ? weight[(std::ptrdiff_t(c) * kernel + ky) * kernel + kx] : T(0);
                }
            };
            if (!grad) {
                for (int kx = 0; kx < kernel; ++kx) column(kx);
                continue;
            }
            int placed = 0;
            for (int parity = 0; parity < stride; ++parity)
                for (int kx = kernel - 1; kx >= 0; --kx)
                    if ((parity - (kx - radius) * dilation) % stride == 0) column(kx), ++placed;
            out += (kernel - placed) * lanes;
        }
}

template <class T>
void unpack_depthwise_grad(const T* sums, int channels, int taps, int lanes, T* grad) {
    for (int c = 0; c < channels; ++c)
        for (int tap = 0; tap < taps; ++tap)
            grad[std::ptrdiff_t(c) * taps + tap] = sums[(std::ptrdiff_t(c / lanes) * taps + tap) * lanes + c % lanes];
}

}  // namespace fastnas
