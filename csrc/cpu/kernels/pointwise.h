// 1×1 convolution as a matrix product over blocked planes, and its derivative with respect to the matrix.
#pragma once

#include "vec.h"

namespace fastnas::FASTNAS_WIDTH {

// Pixels in the largest register tile of one or two output blocks.
constexpr int kTilePixels[] = {FASTNAS_REGISTERS == 32 ? 16 : 8, FASTNAS_REGISTERS == 32 ? 12 : 6};

// acc[p][b] = Σ_k weight[b][k]·in[k][at + p]
template <class T, int L, int Pixels, int Blocks_>
FASTNAS_INLINE void product_tile(const Blocks<const T>& in, int first, int last, const T* weight, ptrdiff_t at,
                                 Vec<T, L> (&acc)[Pixels][Blocks_]) {
#pragma GCC unroll 16
    for (int p = 0; p < Pixels; ++p)
#pragma GCC unroll 2
        for (int b = 0; b < Blocks_; ++b) acc[p][b] = Vec<T, L>{};
    const ptrdiff_t block = ptrdiff_t(last - first) * L;
    for (int k = first; k < last;) {
        const int end = last < k - k % L + L ? last : k - k % L + L;
        const T* column = in[k / L] + at * L + k % L;
#pragma GCC unroll 4
        for (; k < end; ++k, ++column, weight += L) {
            Vec<T, L> w[Blocks_];
#pragma GCC unroll 2
            for (int b = 0; b < Blocks_; ++b) w[b] = load<T, L>(weight + b * block);
#pragma GCC unroll 16
            for (int p = 0; p < Pixels; ++p)
#pragma GCC unroll 2
                for (int b = 0; b < Blocks_; ++b) acc[p][b] += w[b] * column[p * L];
        }
    }
}

// What the sums of a product need: Σ g·(out - mean).
template <class T>
struct Collected {
    const T *g, *mean;
    double* sums;
};

// One or two output blocks from `out` on.
template <class T, int L, int Blocks_, bool Collect>
void pointwise_group(const Blocks<const T>& in, int first, int last, const T* weight, const Area& area, T* out,
                     ptrdiff_t block, const Collected<T>& collected) {
    Vec<T, L> centre[Blocks_] = {};
    if constexpr (Collect)
        for (int b = 0; b < Blocks_; ++b) centre[b] = load<T, L>(collected.mean + b * L);
    for (int row = 0; row < area.rows; ++row) {
        ptrdiff_t x = 0;
        const auto tiles = [&](auto width, ptrdiff_t end) FASTNAS_INLINE_LAMBDA {
            constexpr int n = decltype(width)::value;
            for (; x + n <= end; x += n) {
                Vec<T, L> acc[n][Blocks_];
                product_tile<T, L, n, Blocks_>(in, first, last, weight, row * area.width + x, acc);
                Sum<T, L> sum[Blocks_];
#pragma GCC unroll 16
                for (int p = 0; p < n; ++p)
#pragma GCC unroll 2
                    for (int b = 0; b < Blocks_; ++b) {
                        const ptrdiff_t i = b * block + row * area.out_row + (x + p) * L;
                        store<T, L>(out + i, acc[p][b]);
                        if constexpr (Collect) sum[b].fast += load<T, L>(collected.g + i) * (acc[p][b] - centre[b]);
                    }
                if constexpr (Collect)
                    for (int b = 0; b < Blocks_; ++b) sum[b].flush(collected.sums + b * 2 * L);
            }
        };
        constexpr int most = kTilePixels[Blocks_ - 1];
        // Eight pixels are two tiles of four rather than one of six and two of one.
        const bool fours = most % 4 != 0 && (area.width % most == 2 || area.width % most == 3);
        tiles(Constant<most>{}, fours ? area.width - most : area.width);
        if constexpr (most > 8) tiles(Constant<8>{}, area.width);
        tiles(Constant<4>{}, area.width);
        tiles(Constant<1>{}, area.width);
    }
}

template <class T, int L, bool Collect>
void pointwise_all(const Blocks<const T>& in, int first, int last, const T* weight, const Area& area,
                   const Blocks<T>& out, const Collected<T>& collected) {
    const auto group = [&](auto width, int b) {
        constexpr int n = decltype(width)::value;
        Collected<T> own{};
        if constexpr (Collect) own = {collected.g + b * out.stride, collected.mean + b * L, collected.sums + b * 2 * L};
        pointwise_group<T, L, n, Collect>(in, first, last, weight, area, out[b], out.stride, own);
        weight += n * ptrdiff_t(last - first) * L;
    };
    int b = 0;
    for (; b + 2 <= out.count; b += 2) group(Constant<2>{}, b);
    if (b < out.count) group(Constant<1>{}, b);
}

template <class T, int L>
void pointwise(const Blocks<const T>& in, int first, int last, const T* weight, const Area& area, const Blocks<T>& out,
               const T* g, const T* mean, double* sums) {
    const auto run = g ? pointwise_all<T, L, true> : pointwise_all<T, L, false>;
    run(in, first, last, weight, area, out, {g, mean, sums});
}

// acc[k][b] += Σ_p du[b][p]·d[k][p] over pixels [begin, end), for one tile of input channels.
template <class T, int L, int Channels, int Blocks_>
FASTNAS_INLINE void weight_grad_run(const T* du, ptrdiff_t block, const T* d, ptrdiff_t begin, ptrdiff_t end, T* acc,
                                    ptrdiff_t acc_block) {
    Vec<T, L> sum[Channels][Blocks_] = {};
    for (ptrdiff_t p = begin; p < end; ++p) {
        Vec<T, L> v[Blocks_];
#pragma GCC unroll 2
        for (int b = 0; b < Blocks_; ++b) v[b] = load<T, L>(du + b * block + p * L);
#pragma GCC unroll 16
        for (int k = 0; k < Channels; ++k)
#pragma GCC unroll 2
            for (int b = 0; b < Blocks_; ++b) sum[k][b] += v[b] * d[p * L + k];
    }
    for (int k = 0; k < Channels; ++k)
        for (int b = 0; b < Blocks_; ++b) {
            T* at = acc + b * acc_block + k * L;
            store<T, L>(at, load<T, L>(at) + sum[k][b]);
        }
}

template <class T, int L, int Channels, int Blocks_>
void weight_grad_tile(const T* du, ptrdiff_t block, const T* d, ptrdiff_t pixels, T* acc, ptrdiff_t acc_block) {
    for (ptrdiff_t p = 0; p < pixels; p += kRun)
        weight_grad_run<T, L, Channels, Blocks_>(du, block, d, p, p + kRun < pixels ? p + kRun : pixels, acc,
                                                 acc_block);
}

template <class T, int L>
void pointwise_weight_grad(const Blocks<const T>& du, const Blocks<const T>& d, ptrdiff_t pixels, T* acc) {
    constexpr int one = FASTNAS_REGISTERS == 32 && L >= 16 ? 16 : L >= 8 ? 8 : L;
    constexpr int two = FASTNAS_REGISTERS == 32 && L >= 8 ? 8 : L >= 4 ? 4 : L;
    const ptrdiff_t acc_block = ptrdiff_t(d.count) * L * L;
    for (int ib = 0; ib < d.count; ++ib) {
        int ob = 0;
        for (; ob + 2 <= du.count; ob += 2)
            for (int k = 0; k < L; k += two)
                weight_grad_tile<T, L, two, 2>(du[ob], du.stride, d[ib] + k, pixels,
                                               acc + ob * acc_block + (ib * L + k) * L, acc_block);
        for (int k = 0; ob < du.count && k < L; k += one)
            weight_grad_tile<T, L, one, 1>(du[ob], du.stride, d[ib] + k, pixels,
                                           acc + ob * acc_block + (ib * L + k) * L, acc_block);
    }
}

// out = channel < split ? a : b, for the two halves of a factorised reduce.
template <class T, int L>
void blend(const Blocks<const T>& a, const Blocks<const T>& b, int split, ptrdiff_t pixels, const Blocks<T>& out) {
    for (int block = 0; block < out.count; ++block) {
        typename Vector<T, L>::mask channel;
        for (int l = 0; l < L; ++l) channel[l] = block * L + l;
        const auto left = channel < split;
        for (ptrdiff_t p = 0; p < pixels * L; p += L)
            store<T, L>(out[block] + p, left ? load<T, L>(a[block] + p) : load<T, L>(b[block] + p));
    }
}

}  // namespace fastnas::FASTNAS_WIDTH
