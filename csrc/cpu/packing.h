// Weights in the order in which the kernels read them, and gradients back from it.
#pragma once

#include <cstddef>

namespace fastnas {

inline int blocks_of(int channels, int lanes) {
    return (channels + lanes - 1) / lanes;
}

// Matrices for `pointwise`: output blocks in pairs (a last one alone); for each pair (columns, blocks, L). `rows_first`
// and `rows_last` say which output channels the given rows are; the others are zero. `transposed` reads the matrix as
// its transpose.
template <class T>
void pack_pointwise(const T* weight, int rows, int columns, bool transposed, int first_row, int all_rows, int lanes,
                    T* out) {
    const int blocks = blocks_of(all_rows, lanes);
    for (int block = 0; block < blocks; block += 2) {
        const int width = (block + 2 <= blocks ? 2 : 1) * lanes, offset = block * lanes - first_row;
        for (int lane = 0; lane < width; ++lane) {
            const int row = offset + lane;
            const bool given = row >= 0 && row < rows;
            const T* from = weight + (transposed ? row : std::ptrdiff_t(row) * columns);
            const std::ptrdiff_t step = transposed ? rows : 1;
            for (int k = 0; k < columns; ++k) out[std::ptrdiff_t(k) * width + lane] = given ? from[k * step] : T(0);
        }
        out += std::ptrdiff_t(columns) * width;
    }
}

inline std::size_t packed_pointwise_size(int columns, int rows, int lanes) {
    return std::size_t(columns) * blocks_of(rows, lanes) * lanes;
}

// The gradient that `pointwise_weight_grad` left in `threads` copies of (out blocks, in blocks · L, L), `stride` apart.
template <class T>
void unpack_pointwise_grad(const T* acc, std::size_t stride, int threads, int first_row, int rows, int columns,
                           int lanes, T* grad) {
    const std::ptrdiff_t padded = std::ptrdiff_t(blocks_of(columns, lanes)) * lanes;
    for (int row = 0; row < rows; ++row) {
        const int channel = first_row + row;
        const T* at = acc + channel / lanes * padded * lanes + channel % lanes;
        for (int k = 0; k < columns; ++k) {
            T sum = 0;
            for (int t = 0; t < threads; ++t) sum += at[t * stride + k * lanes];
            grad[std::ptrdiff_t(row) * columns + k] = sum;
        }
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
void unpack_depthwise_grad(const T* acc, std::size_t stride, int threads, int channels, int taps, int lanes, T* grad) {
    for (int c = 0; c < channels; ++c)
        for (int tap = 0; tap < taps; ++tap) {
            const T* at = acc + (std::ptrdiff_t(c / lanes) * taps + tap) * lanes + c % lanes;
            T sum = 0;
            for (int t = 0; t < threads; ++t) sum += at[t * stride];
            grad[std::ptrdiff_t(c) * taps + tap] = sum;
        }
}

}  // namespace fastnas
