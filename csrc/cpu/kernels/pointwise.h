// 1×1 convolution as a matrix product over blocked planes, and its derivative with respect to the matrix.
#pragma once

#include "vec.h"

namespace fastnas::FASTNAS_WIDTH {

// Pixels in a register tile of one or two output blocks.
constexpr int kTilePixels[] = {FASTNAS_REGISTERS == 32 ? 16 : 8, FASTNAS_REGISTERS == 32 ? 12 : 6};

template <class T, int L>
struct Product {
    const T* in;
    int first, last;
    ptrdiff_t pixels;

    // acc[p][b] = Σ_k weight[k][b]·in[k][at + p]
    template <int Pixels, int Blocks>
    FASTNAS_INLINE void tile(ptrdiff_t at, const T* weight, Vec<T, L> (&acc)[Pixels][Blocks]) const {
#pragma GCC unroll 16
        for (int p = 0; p < Pixels; ++p)
#pragma GCC unroll 2
            for (int b = 0; b < Blocks; ++b) acc[p][b] = Vec<T, L>{};
        for (int k = first; k < last;) {
            const int end = last < k - k % L + L ? last : k - k % L + L;
            const T* column = in + (k / L * pixels + at) * L + k % L;
#pragma GCC unroll 2
            for (; k < end; ++k, ++column, weight += Blocks * L) {
                Vec<T, L> w[Blocks];
#pragma GCC unroll 2
                for (int b = 0; b < Blocks; ++b) w[b] = load<T, L>(weight + b * L);
#pragma GCC unroll 16
                for (int p = 0; p < Pixels; ++p)
#pragma GCC unroll 2
                    for (int b = 0; b < Blocks; ++b) acc[p][b] += w[b] * column[p * L];
            }
        }
    }
};

// One or two output blocks. With g, sums (Blocks, 2, L) get Σ g·(u - mean) in their first half.
template <class T, int L, int Blocks, bool Collect>
void pointwise_group(const Product<T, L>& product, const T* weight, T* out, const T* g, const T* mean, double* sums) {
    const ptrdiff_t pixels = product.pixels;
    Vec<T, L> centre[Blocks] = {};
    if constexpr (Collect)
        for (int b = 0; b < Blocks; ++b) centre[b] = load<T, L>(mean + b * L);
    ptrdiff_t at = 0;
    const auto tiles = [&](auto width) FASTNAS_INLINE_LAMBDA {
        constexpr int n = decltype(width)::value;
        for (; at + n <= pixels; at += n) {
            Vec<T, L> acc[n][Blocks];
            product.template tile<n, Blocks>(at, weight, acc);
            Sum<T, L> sum[Blocks];
#pragma GCC unroll 16
            for (int p = 0; p < n; ++p)
#pragma GCC unroll 2
                for (int b = 0; b < Blocks; ++b) {
                    const ptrdiff_t i = (b * pixels + at + p) * L;
                    store<T, L>(out + i, acc[p][b]);
                    if constexpr (Collect) sum[b].fast += load<T, L>(g + i) * (acc[p][b] - centre[b]);
                }
            if constexpr (Collect)
                for (int b = 0; b < Blocks; ++b) sum[b].flush(sums + b * 2 * L);
        }
    };
    tiles(Constant<kTilePixels[Blocks - 1]>{});
    tiles(Constant<4>{});
    tiles(Constant<1>{});
}

template <class T, int L, bool Collect>
void pointwise_all(const Product<T, L>& product, const T* weight, int blocks, T* out, const T* g, const T* mean,
                   double* sums) {
    const auto group = [&](auto width, int b) {
        constexpr int n = decltype(width)::value;
        const ptrdiff_t plane = b * product.pixels * L;
        pointwise_group<T, L, n, Collect>(product, weight, out + plane, Collect ? g + plane : nullptr,
                                          Collect ? mean + b * L : nullptr, Collect ? sums + b * 2 * L : nullptr);
        weight += n * ptrdiff_t(product.last - product.first) * L;
    };
    int b = 0;
    for (; b + 2 <= blocks; b += 2) group(Constant<2>{}, b);
    if (b < blocks) group(Constant<1>{}, b);
}

template <class T, int L>
void pointwise(const T* in, int first, int last, const T* weight, ptrdiff_t pixels, int blocks, T* out, const T* g,
               const T* mean, double* sums) {
    const Product<T, L> product{in, first, last, pixels};
    (g ? pointwise_all<T, L, true> : pointwise_all<T, L, false>)(product, weight, blocks, out, g, mean, sums);
}

// acc[k][b] += Σ_p du[b][p]·d[k][p] over pixels [begin, end), for one tile of input channels.
template <class T, int L, int Channels, int Blocks>
FASTNAS_INLINE void weight_grad_run(const T* du, const T* d, ptrdiff_t pixels, ptrdiff_t begin, ptrdiff_t end, T* acc,
                                    ptrdiff_t acc_block) {
    Vec<T, L> sum[Channels][Blocks] = {};
    for (ptrdiff_t p = begin; p < end; ++p) {
        Vec<T, L> v[Blocks];
#pragma GCC unroll 2
        for (int b = 0; b < Blocks; ++b) v[b] = load<T, L>(du + (b * pixels + p) * L);
#pragma GCC unroll 16
        for (int k = 0; k < Channels; ++k)
#pragma GCC unroll 2
            for (int b = 0; b < Blocks; ++b) sum[k][b] += v[b] * d[p * L + k];
    }
    for (int k = 0; k < Channels; ++k)
        for (int b = 0; b < Blocks; ++b) {
            T* at = acc + b * acc_block + k * L;
            store<T, L>(at, load<T, L>(at) + sum[k][b]);
        }
}

template <class T, int L, int Channels, int Blocks>
void weight_grad_tile(const T* du, const T* d, ptrdiff_t pixels, T* acc, ptrdiff_t acc_block) {
    for (ptrdiff_t p = 0; p < pixels; p += kRun)
        weight_grad_run<T, L, Channels, Blocks>(du, d, pixels, p, p + kRun < pixels ? p + kRun : pixels, acc,
                                                acc_block);
}

template <class T, int L>
void pointwise_weight_grad(const T* du, int out_blocks, const T* d, int in_blocks, ptrdiff_t pixels, T* acc) {
    constexpr int one = FASTNAS_REGISTERS == 32 && L >= 16 ? 16 : L >= 8 ? 8 : L;
    constexpr int two = FASTNAS_REGISTERS == 32 && L >= 8 ? 8 : L >= 4 ? 4 : L;
    const ptrdiff_t acc_block = ptrdiff_t(in_blocks) * L * L;
    for (int ib = 0; ib < in_blocks; ++ib) {
        const T* column = d + ib * pixels * L;
        int ob = 0;
        for (; ob + 2 <= out_blocks; ob += 2)
            for (int k = 0; k < L; k += two)
                weight_grad_tile<T, L, two, 2>(du + ob * pixels * L, column + k, pixels,
                                               acc + ob * acc_block + (ib * L + k) * L, acc_block);
        for (int k = 0; ob < out_blocks && k < L; k += one)
            weight_grad_tile<T, L, one, 1>(du + ob * pixels * L, column + k, pixels,
                                           acc + ob * acc_block + (ib * L + k) * L, acc_block);
    }
}

// out = channel < split ? a : b, for the two halves of a factorised reduce.
template <class T, int L>
void blend(const T* a, const T* b, int split, int blocks, ptrdiff_t pixels, T* out) {
    for (int block = 0; block < blocks; ++block) {
        typename Vector<T, L>::mask channel;
        for (int l = 0; l < L; ++l) channel[l] = block * L + l;
        const auto left = channel < split;
        for (ptrdiff_t p = 0; p < pixels; ++p, a += L, b += L, out += L)
            store<T, L>(out, left ? load<T, L>(a) : load<T, L>(b));
    }
}

}  // namespace fastnas::FASTNAS_WIDTH
