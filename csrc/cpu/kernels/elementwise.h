// Sums over, and combinations of, single planes.
#pragma once

#include "vec.h"

namespace fastnas::FASTNAS_WIDTH {

template <class T, int L>
void relu_block(const T* x, ptrdiff_t pixels, T* out) {
    for (ptrdiff_t p = 0; p < pixels * L; p += L) store<T, L>(out + p, relu(load<T, L>(x + p)));
}

template <class T, int L>
void relu_grad(const T* g, const T* x, ptrdiff_t pixels, T* grad) {
    for (ptrdiff_t p = 0; p < pixels * L; p += L)
        store<T, L>(grad + p, load<T, L>(grad + p) + relu_mask(load<T, L>(g + p), load<T, L>(x + p)));
}

template <class T, int L>
void mask_rows(const T* x, const Area& area, T* g) {
    for (int row = 0; row < area.rows; ++row, g += area.out_row)
        for (ptrdiff_t p = 0; p < area.width * L; p += L, x += L)
            store<T, L>(g + p, relu_mask(load<T, L>(g + p), load<T, L>(x)));
}

// add(p) for every pixel, flush() after runs of them that are short enough for sums in T.
template <class Add, class Flush>
FASTNAS_INLINE void in_runs(ptrdiff_t pixels, Add add, Flush flush) {
    ptrdiff_t p = 0;
    for (; p + kFlush <= pixels; p += kFlush) {
#pragma GCC unroll 16
        for (int i = 0; i < kFlush; ++i) add(p + i);
        flush();
    }
    for (; p < pixels; ++p) add(p);
    flush();
}

// sums += Σ value(p)
template <class T, int L, class Value>
FASTNAS_INLINE void sum_over(ptrdiff_t pixels, double* sums, Value value) {
    Sum<T, L> run;
    in_runs(
        pixels, [&](ptrdiff_t p) FASTNAS_INLINE_LAMBDA { run.fast += value(p); },
        [&]() FASTNAS_INLINE_LAMBDA { run.flush(sums); });
}

// Two passes, since Σx² - (Σx)²/n loses what the mean exceeds the deviation by. The second also says by how much the
// first one's mean is wrong, rounded as it and its sums are.
template <class T, int L>
void moments(const T* x, ptrdiff_t pixels, double* moments) {
    double *mean = moments, *squares = moments + L, off[L] = {};
    for (int l = 0; l < 2 * L; ++l) moments[l] = 0;
    sum_over<T, L>(pixels, mean, [=](ptrdiff_t p) { return load<T, L>(x + p * L); });
    Vec<T, L> centre;
    for (int l = 0; l < L; ++l) mean[l] /= double(pixels), centre[l] = T(mean[l]);
    Sum<T, L> sum, square;
    in_runs(
        pixels,
        [&](ptrdiff_t p) FASTNAS_INLINE_LAMBDA {
            const Vec<T, L> d = load<T, L>(x + p * L) - centre;
            sum.fast += d;
            square.fast += d * d;
        },
        [&]() FASTNAS_INLINE_LAMBDA {
            sum.flush(off);
            square.flush(squares);
        });
    for (int l = 0; l < L; ++l) {
        const double change = off[l] / double(pixels);
        squares[l] -= off[l] * change;
        if (change == change) mean[l] = centre[l] + change;  // an infinite mean stays infinite
    }
}

template <class T, int L>
void sum(const T* g, ptrdiff_t pixels, double* sums) {
    sum_over<T, L>(pixels, sums, [=](ptrdiff_t p) { return load<T, L>(g + p * L); });
}

template <class T, int L>
void product(const T* g, const T* x, const T* mean, ptrdiff_t pixels, double* sums) {
    const Vec<T, L> m = load<T, L>(mean);
    sum_over<T, L>(pixels, sums, [=](ptrdiff_t p) { return load<T, L>(g + p * L) * (load<T, L>(x + p * L) - m); });
}

// Several terms at a time: y is read and written once for them all.
template <class T, int L, int Count>
FASTNAS_INLINE void accumulate_terms(const Term<T>* terms, ptrdiff_t pixels, bool add, T* y) {
    Vec<T, L> mean[Count], scale[Count], shift{};
    for (int i = 0; i < Count; ++i) {
        mean[i] = load<T, L>(terms[i].mean);
        scale[i] = load<T, L>(terms[i].scale);
        shift += load<T, L>(terms[i].shift);
    }
    for (ptrdiff_t p = 0; p < pixels * L; p += L) {
        Vec<T, L> sum = shift;
#pragma GCC unroll 8
        for (int i = 0; i < Count; ++i) sum += (load<T, L>(terms[i].x + p) - mean[i]) * scale[i];
        store<T, L>(y + p, add ? load<T, L>(y + p) + sum : sum);
    }
}

template <class T, int L>
void accumulate(const Term<T>* terms, int count, ptrdiff_t pixels, bool add, T* y) {
    const auto run = [&](auto n) {
        constexpr int at_once = decltype(n)::value;
        for (; count >= at_once; count -= at_once, terms += at_once, add = true)
            accumulate_terms<T, L, at_once>(terms, pixels, add, y);
    };
    run(Constant<7>{});
    run(Constant<5>{});
    run(Constant<4>{});
    run(Constant<3>{});
    run(Constant<2>{});
    run(Constant<1>{});
    if (!add)
        for (ptrdiff_t p = 0; p < pixels * L; p += L) store<T, L>(y + p, Vec<T, L>{});
}

template <class T, int L>
void norm_grad(const T* g, const T* x, const T* mean, const T* a, const T* b, const T* c, ptrdiff_t pixels, T* out) {
    const auto m = load<T, L>(mean), va = load<T, L>(a), vb = load<T, L>(b), vc = load<T, L>(c);
    for (ptrdiff_t p = 0; p < pixels * L; p += L) {
        Vec<T, L> v = va * load<T, L>(g + p);
        if (x) v += vb * (load<T, L>(x + p) - m) + vc;
        store<T, L>(out + p, v);
    }
}

}  // namespace fastnas::FASTNAS_WIDTH
