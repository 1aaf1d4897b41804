// Bilinear resampling of one block of channels, and its derivative.
#pragma once

#include "vec.h"

namespace fastnas::FASTNAS_WIDTH {

template <class T, int L>
void relu_resample(const Resampling<T>& by, const T* x, Rows rows, T* out) {
    const ptrdiff_t in_row = ptrdiff_t(by.in.w) * L;
    for (int y = rows.first; y < rows.last; ++y) {
        const Tap<T>* row = by.rows.taps + 2 * y;
        const T *above = x + row[0].at * in_row, *below = x + row[1].at * in_row;
        for (int i = 0; i < by.out.w; ++i, out += L) {
            const Tap<T>* column = by.columns.taps + 2 * i;
            const auto between = [=](const T* source) FASTNAS_INLINE_LAMBDA {
                return load<T, L>(source + column[0].at * L) * column[0].weight +
                       load<T, L>(source + column[1].at * L) * column[1].weight;
            };
            store<T, L>(out, relu(between(above) * row[0].weight + between(below) * row[1].weight));
        }
    }
}

// The transposed resampling: along columns into a row of scratch, then along the row.
template <class T, int L>
void resample_grad(const Resampling<T>& by, const T* g, ptrdiff_t g_row, Rows rows, T* scratch, T* grad) {
    const ptrdiff_t out_row = ptrdiff_t(by.out.w) * L;
    for (int y = rows.first; y < rows.last; ++y) {
        const Tap<T>*first = by.rows.readers + by.rows.starts[y], *last = by.rows.readers + by.rows.starts[y + 1];
        if (first == last) continue;
        for (ptrdiff_t at = 0; at < out_row; at += L) {
            Vec<T, L> sum{};
            for (const Tap<T>* tap = first; tap < last; ++tap)
                sum += load<T, L>(g + tap->at * g_row + at) * tap->weight;
            store<T, L>(scratch + at, sum);
        }
        T* to = grad + ptrdiff_t(y) * by.in.w * L;
        for (int x = 0; x < by.in.w; ++x, to += L) {
            Vec<T, L> sum = load<T, L>(to);
            for (int i = by.columns.starts[x]; i < by.columns.starts[x + 1]; ++i)
                sum += load<T, L>(scratch + by.columns.readers[i].at * L) * by.columns.readers[i].weight;
            store<T, L>(to, sum);
        }
    }
}

}  // namespace fastnas::FASTNAS_WIDTH
