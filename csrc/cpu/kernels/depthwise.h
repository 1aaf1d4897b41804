// Depthwise convolution of one block of channels: forward, gradient of the input, gradient of the weight.
//
// A row of the result is a sum over rows of the source: the caller lists the rows that exist, with their weights, so
// borders above and below, dilation and stride need no case of their own. Left and right the planes are padded.
#pragma once

#include "vec.h"

namespace fastnas::FASTNAS_WIDTH {

constexpr int kMaxKernel = 7;

template <class T>
struct RowList {
    int count = 0;
    const T* source[kMaxKernel];
    const T* weight[kMaxKernel];
    FASTNAS_INLINE void add(const T* s, const T* w) {
        source[count] = s;
        weight[count++] = w;
    }
};

// acc[q] = Σ over rows and taps of weight[tap]·source[(x + q)·Stride + tap·Step]
template <class T, int L, int Pixels, int Taps, int Step, int Stride>
FASTNAS_INLINE void correlate(const RowList<T>& rows, int x, Vec<T, L> (&acc)[Pixels]) {
#pragma GCC unroll 8
    for (int q = 0; q < Pixels; ++q) acc[q] = Vec<T, L>{};
    for (int i = 0; i < rows.count; ++i) {
        const T* source = rows.source[i] + ptrdiff_t(x) * Stride * L;
        const T* weight = rows.weight[i];
#pragma GCC unroll 8
        for (int k = 0; k < Taps; ++k) {
            const Vec<T, L> w = load<T, L>(weight + k * L);
#pragma GCC unroll 8
            for (int q = 0; q < Pixels; ++q) acc[q] += load<T, L>(source + (q * Stride + k * Step) * L) * w;
        }
    }
}

// emit(x, value) for every x of a row of `width` pixels.
template <class T, int L, int Taps, int Step, int Stride, class Emit>
FASTNAS_INLINE void correlate_row(const RowList<T>& rows, int width, Emit emit) {
    int x = 0;
    const auto run = [&](auto pixels) FASTNAS_INLINE_LAMBDA {
        constexpr int n = decltype(pixels)::value;
        for (; x + n <= width; x += n) {
            Vec<T, L> acc[n];
            correlate<T, L, n, Taps, Step, Stride>(rows, x, acc);
#pragma GCC unroll 8
            for (int q = 0; q < n; ++q) emit(x + q, acc[q]);
        }
    };
    run(Constant<8>{});
    run(Constant<4>{});
    run(Constant<2>{});
    run(Constant<1>{});
}

template <class T, int L, int K, int D, int S>
void depthwise(const Depthwise& conv, const T* plane, const T* weight, Rows rows, T* out) {
    constexpr int reach = D * (K / 2);
    const ptrdiff_t row = ptrdiff_t(conv.in.w + 2 * conv.pad) * L;
    plane += (conv.pad - reach) * L;
    for (int y = rows.first; y < rows.last; ++y, out += ptrdiff_t(conv.out.w) * L) {
        RowList<T> list;
        for (int k = 0; k < K; ++k) {
            const int source = y * S + k * D - reach;
            if (source >= 0 && source < conv.in.h) list.add(plane + source * row, weight + k * K * L);
        }
        correlate_row<T, L, K, D, S>(list, conv.out.w, [=](int x, Vec<T, L> v) { store<T, L>(out + x * L, v); });
    }
}

// The columns of a transposed convolution that reach pixels x ≡ Parity (mod S): their number, the step between the
// output pixels they come from, and the output pixel of the first, for x = Parity.
template <int K, int D, int S, int Parity>
struct Transposed {
    static constexpr bool meets(int k) { return (Parity - (k - K / 2) * D) % S == 0; }
    static constexpr int count() {
        int n = 0;
        for (int k = 0; k < K; ++k) n += meets(k);
        return n;
    }
    static constexpr int first() {
        for (int k = K - 1; k >= 0; --k)
            if (meets(k)) return (Parity - (k - K / 2) * D) / S;
        return 0;
    }
    static constexpr int taps = count(), step = S == 1 ? D : 1, start = first();
};

// emit(pixel index, value) for the pixels of column parity `Parity` of the input's gradient.
template <class T, int L, int K, int D, int S, int Parity, class Emit>
FASTNAS_INLINE void transposed_columns(const Depthwise& conv, const T* g, const T* weight, Rows rows, Emit emit) {
    using Columns = Transposed<K, D, S, Parity>;
    if constexpr (Columns::taps > 0) {
        const ptrdiff_t row = ptrdiff_t(conv.out.w + 2 * conv.pad) * L;
        for (int y = rows.first; y < rows.last; ++y) {
            RowList<T> list;
            for (int k = 0; k < K; ++k) {
                const int scaled = y - (k - K / 2) * D;
                if (scaled >= 0 && scaled % S == 0 && scaled / S < conv.out.h)
                    list.add(g + scaled / S * row + (conv.pad + Columns::start) * L, weight + k * K * L);
            }
            const ptrdiff_t at = ptrdiff_t(y) * conv.in.w + Parity;
            correlate_row<T, L, Columns::taps, Columns::step, 1>(list, (conv.in.w - Parity + S - 1) / S,
                                                                 [&](int x, Vec<T, L> v) { emit(at + x * S, v); });
        }
    }
}

template <class T, int L, int K, int D, int S, class Emit>
FASTNAS_INLINE void transposed(const Depthwise& conv, const T* g, const T* weight, Rows rows, Emit emit) {
    transposed_columns<T, L, K, D, S, 0>(conv, g, weight, rows, emit);
    if constexpr (S == 2)
        transposed_columns<T, L, K, D, S, 1>(conv, g, weight + Transposed<K, D, S, 0>::taps * L, rows, emit);
}

template <class T, int L, int K, int D, int S>
void depthwise_grad_relu(const Depthwise& conv, const T* g, const T* weight, const T* x, Rows rows, T* grad) {
    transposed<T, L, K, D, S>(conv, g, weight, rows, [=](ptrdiff_t p, Vec<T, L> v) {
        store<T, L>(grad + p * L, load<T, L>(grad + p * L) + relu_mask(v, load<T, L>(x + p * L)));
    });
}

template <class T, int L, int K, int D>
void depthwise_grad_norm(const Depthwise& conv, const T* g, const T* weight, const T* z, const T* mean, const T* scale,
                         const T* shift, Rows rows, T* grad, double* sums) {
    const auto m = load<T, L>(mean), s = load<T, L>(scale), t = load<T, L>(shift);
    Sum<T, L> sum, product;
    int run = 0;
    transposed<T, L, K, D, 1>(conv, g, weight, rows, [&](ptrdiff_t p, Vec<T, L> v) {
        const Vec<T, L> centred = load<T, L>(z + p * L) - m;
        const Vec<T, L> masked = relu_mask(v, centred * s + t);
        store<T, L>(grad + p * L, masked);
        sum.fast += masked;
        product.fast += masked * centred;
        if (++run == kFlush) {
            sum.flush(sums);
            product.flush(sums + L);
            run = 0;
        }
    });
    sum.flush(sums);
    product.flush(sums + L);
}

// Rows of taps [first, first + Height), for result rows [begin, end), all of whose source rows exist.
template <class T, int L, int K, int D, int S, int Height>
FASTNAS_INLINE void weight_grad_run(const Depthwise& conv, const T* plane, const T* g, int first, int begin, int end,
                                    T* acc) {
    constexpr int chains = Height * K < 8 ? 2 : 1;  // enough independent sums to hide the latency of an addition
    // Dilated, two pixels have no source in common: to keep those that the next two read again, as the compiler likes
    // to, would push sums out of the registers.
    constexpr bool forgets = D == 2 && S == 1 && chains * (2 * K - 1) + 2 > FASTNAS_REGISTERS;
    const ptrdiff_t row = ptrdiff_t(conv.in.w + 2 * conv.pad) * L;
    Vec<T, L> sum[chains][Height][K] = {};
    const auto add = [&](const T* source, const T* gradient, Vec<T, L>(&into)[Height][K]) FASTNAS_INLINE_LAMBDA {
        const Vec<T, L> v = load<T, L>(gradient);
#pragma GCC unroll 8
        for (int i = 0; i < Height; ++i)
#pragma GCC unroll 8
            for (int k = 0; k < K; ++k) into[i][k] += v * load<T, L>(source + i * D * row + k * D * L);
    };
    for (int y = begin; y < end; ++y) {
        const T* source = plane + (y * S + (first - K / 2) * D) * row + (conv.pad - D * (K / 2)) * L;
        const T* gradient = g + (ptrdiff_t(y) * (conv.out.w + 2 * conv.pad) + conv.pad) * L;
        int x = 0;
        for (; x + chains <= conv.out.w; x += chains) {
            if constexpr (forgets) asm("" : "+r"(source));
#pragma GCC unroll 2
            for (int c = 0; c < chains; ++c) add(source + (x + c) * S * L, gradient + (x + c) * L, sum[c]);
        }
        for (; x < conv.out.w; ++x) add(source + x * S * L, gradient + x * L, sum[0]);
    }
    for (int i = 0; i < Height; ++i)
        for (int k = 0; k < K; ++k) {
            Vec<T, L> total = sum[0][i][k];
            if constexpr (chains == 2) total += sum[1][i][k];
            T* at = acc + ((first + i) * K + k) * L;
            store<T, L>(at, load<T, L>(at) + total);
        }
}

// The same in runs of about kRun pixels, so that rounding errors do not grow with the size of the image.
template <class T, int L, int K, int D, int S, int Height>
void weight_grad_rows(const Depthwise& conv, const T* plane, const T* g, int first, int begin, int end, T* acc) {
    const int run = conv.out.w < kRun ? kRun / conv.out.w : 1;
    for (; begin < end; begin += run)
        weight_grad_run<T, L, K, D, S, Height>(conv, plane, g, first, begin, begin + run < end ? begin + run : end,
                                               acc);
}

template <class T, int L, int K, int D, int S>
void depthwise_weight_grad(const Depthwise& conv, const T* plane, const T* g, Rows rows, T* acc) {
    constexpr int reach = D * (K / 2);
    constexpr bool together = K * K + 2 <= FASTNAS_REGISTERS;
    // Of the given rows, those that find the source row `shift` further: not above the plane and not below it.
    const auto from = [=](int shift) FASTNAS_INLINE_LAMBDA {
        const int row = shift < 0 ? (-shift + S - 1) / S : 0;
        return row > rows.first ? row : rows.first;
    };
    const auto to = [=](int shift) FASTNAS_INLINE_LAMBDA {
        const int row = conv.in.h > shift ? (conv.in.h - 1 - shift) / S + 1 : 0;
        return row < rows.last ? row : rows.last;
    };
    int begin = from(-reach), end = to(reach);  // rows whose every source row exists
    if (!together || begin >= end) begin = end = 0;
    if (together && begin < end) weight_grad_rows<T, L, K, D, S, together ? K : 1>(conv, plane, g, 0, begin, end, acc);
    for (int k = 0; k < K; ++k) {
        const int low = from(k * D - reach), high = to(k * D - reach);
        if (begin == end) {
            if (low < high) weight_grad_rows<T, L, K, D, S, 1>(conv, plane, g, k, low, high, acc);
            continue;
        }
        if (low < begin) weight_grad_rows<T, L, K, D, S, 1>(conv, plane, g, k, low, begin, acc);
        if (end < high) weight_grad_rows<T, L, K, D, S, 1>(conv, plane, g, k, end, high, acc);
    }
}

}  // namespace fastnas::FASTNAS_WIDTH
