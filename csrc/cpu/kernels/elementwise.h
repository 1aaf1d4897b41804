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

// Adds Σ value(p) and Σ value(p)·weight(p), flushed every kFlush pixels.
template <class T, int L>
void moments(const T* x, ptrdiff_t pixels, T* pivot, double* sums) {
    const Vec<T, L> middle = load<T, L>(x + pixels / 2 * L);
    store<T, L>(pivot, middle);
    Sum<T, L> first, second;
    for (ptrdiff_t p = 0; p < pixels;) {
        for (const ptrdiff_t end = p + kFlush < pixels ? p + kFlush : pixels; p < end; ++p) {
            const Vec<T, L> d = load<T, L>(x + p * L) - middle;
            first.fast += d;
            second.fast += d * d;
        }
        first.flush(sums);
        second.flush(sums + L);
    }
}

template <class T, int L>
void sum(const T* g, ptrdiff_t pixels, double* sums) {
    Sum<T, L> total;
    for (ptrdiff_t p = 0; p < pixels;) {
        for (const ptrdiff_t end = p + kFlush < pixels ? p + kFlush : pixels; p < end; ++p)
            total.fast += load<T, L>(g + p * L);
        total.flush(sums);
    }
}

template <class T, int L>
void product(const T* g, const T* x, const T* mean, ptrdiff_t pixels, double* sums) {
    const Vec<T, L> m = load<T, L>(mean);
    Sum<T, L> total;
    for (ptrdiff_t p = 0; p < pixels;) {
        for (const ptrdiff_t end = p + kFlush < pixels ? p + kFlush : pixels; p < end; ++p)
            total.fast += load<T, L>(g + p * L) * (load<T, L>(x + p * L) - m);
        total.flush(sums);
    }
}

template <class T, int L>
void accumulate(const T* x, const T* mean, const T* scale, const T* shift, ptrdiff_t pixels, T* y) {
    const auto m = load<T, L>(mean), s = load<T, L>(scale), t = load<T, L>(shift);
    for (ptrdiff_t p = 0; p < pixels * L; p += L)
        store<T, L>(y + p, load<T, L>(y + p) + ((load<T, L>(x + p) - m) * s + t));
}

template <class T, int L>
void norm_grad(const T* g, const T* x, const T* mean, const T* a, const T* b, const T* c, ptrdiff_t pixels, bool add,
               T* out) {
    const auto m = load<T, L>(mean), va = load<T, L>(a), vb = load<T, L>(b), vc = load<T, L>(c);
    for (ptrdiff_t p = 0; p < pixels * L; p += L) {
        const Vec<T, L> before = add ? load<T, L>(out + p) : Vec<T, L>{};
        store<T, L>(out + p, before + va * load<T, L>(g + p) + vb * (load<T, L>(x + p) - m) + vc);
    }
}

template <class T, int L>
void axpy(T alpha, const T* x, ptrdiff_t pixels, T* y) {
    for (ptrdiff_t p = 0; p < pixels * L; p += L) store<T, L>(y + p, load<T, L>(y + p) + alpha * load<T, L>(x + p));
}

}  // namespace fastnas::FASTNAS_WIDTH
