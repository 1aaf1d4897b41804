// 1×1 convolution as a matrix product over blocked planes, with statistics taken from the registers that hold the result.
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

// What happens to a finished value, per output block.
template <class T, int L, Collect C>
struct Collector {
    Vec<T, L> pivot{};
    const T* g = nullptr;
    Sum<T, L> first, second;
    double* sums = nullptr;

    FASTNAS_INLINE void add(ptrdiff_t p, Vec<T, L> value) {
        if constexpr (C == Collect::moments) {
            const Vec<T, L> d = value - pivot;
            first.fast += d;
            second.fast += d * d;
        }
        if constexpr (C == Collect::product) first.fast += load<T, L>(g + p * L) * (value - pivot);
    }
    FASTNAS_INLINE void flush() {
        if constexpr (C != Collect::nothing) first.flush(sums);
        if constexpr (C == Collect::moments) second.flush(sums + L);
    }
};

template <class T, int L, int Blocks, Collect C>
void pointwise_group(const Product<T, L>& product, const T* weight, T* out, T* pivot, const T* g, double* sums) {
    const ptrdiff_t pixels = product.pixels;
    Collector<T, L, C> collect[Blocks];
    if constexpr (C == Collect::moments) {
        Vec<T, L> middle[1][Blocks];
        product.template tile<1, Blocks>(pixels / 2, weight, middle);
        for (int b = 0; b < Blocks; ++b) store<T, L>(pivot + b * L, middle[0][b]);
    }
    if constexpr (C != Collect::nothing)
        for (int b = 0; b < Blocks; ++b) {
            collect[b].pivot = load<T, L>(pivot + b * L);
            collect[b].sums = sums + b * 2 * L;
            collect[b].g = C == Collect::product ? g + b * pixels * L : nullptr;
        }
    ptrdiff_t at = 0;
    int run = 0;
    const auto tiles = [&](auto width) FASTNAS_INLINE_LAMBDA {
        constexpr int n = decltype(width)::value;
        for (; at + n <= pixels; at += n) {
            Vec<T, L> acc[n][Blocks];
            product.template tile<n, Blocks>(at, weight, acc);
#pragma GCC unroll 16
            for (int p = 0; p < n; ++p)
#pragma GCC unroll 2
                for (int b = 0; b < Blocks; ++b) {
                    store<T, L>(out + (b * pixels + at + p) * L, acc[p][b]);
                    collect[b].add(at + p, acc[p][b]);
                }
            if ((run += n) >= kFlush) {
                for (int b = 0; b < Blocks; ++b) collect[b].flush();
                run = 0;
            }
        }
    };
    tiles(Constant<kTilePixels[Blocks - 1]>{});
    tiles(Constant<4>{});
    tiles(Constant<1>{});
    for (int b = 0; b < Blocks; ++b) collect[b].flush();
}

template <class T, int L, Collect C>
void pointwise_all(const Product<T, L>& product, const T* weight, int blocks, T* out, T* pivot, const T* g,
                   double* sums) {
    int b = 0;
    for (; b + 2 <= blocks; b += 2) {
        const ptrdiff_t plane = b * product.pixels * L;
        pointwise_group<T, L, 2, C>(product, weight, out + plane, pivot + b * L, g + plane, sums + b * 2 * L);
        weight += 2 * ptrdiff_t(product.last - product.first) * L;
    }
    const ptrdiff_t plane = b * product.pixels * L;
    if (b < blocks)
        pointwise_group<T, L, 1, C>(product, weight, out + plane, pivot + b * L, g + plane, sums + b * 2 * L);
}

template <class T, int L>
void pointwise(const T* in, int first, int last, const T* weight, ptrdiff_t pixels, int blocks, T* out, Collect collect,
               T* pivot, const T* g, double* sums) {
    const Product<T, L> product{in, first, last, pixels};
    switch (collect) {
        case Collect::nothing:
            return pointwise_all<T, L, Collect::nothing>(product, weight, blocks, out, pivot, g, sums);
        case Collect::moments:
            return pointwise_all<T, L, Collect::moments>(product, weight, blocks, out, pivot, g, sums);
        case Collect::product:
            return pointwise_all<T, L, Collect::product>(product, weight, blocks, out, pivot, g, sums);
    }
}

// acc[k][b] += Σ_p du[b][p]·d[k][p] for one tile of input channels.
template <class T, int L, int Channels, int Blocks>
FASTNAS_INLINE void weight_grad_tile(const T* du, const T* d, ptrdiff_t pixels, T* acc, ptrdiff_t acc_block) {
    Vec<T, L> sum[Channels][Blocks] = {};
    for (ptrdiff_t p = 0; p < pixels; ++p) {
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
