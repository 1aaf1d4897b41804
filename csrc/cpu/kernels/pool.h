// 3×3 pools with padding 1, stride 1 or 2.
#pragma once

#include "vec.h"

namespace fastnas::FASTNAS_WIDTH {

// The source rows or columns [first, last) of the window of result row or column `at`, clipped to [0, size).
struct Window {
    int first, last;
    FASTNAS_INLINE Window(int at, int stride, int size) {
        first = at * stride - 1;
        last = first + 3 < size ? first + 3 : size;
        if (first < 0) first = 0;
    }
    FASTNAS_INLINE Window(int at, int stride) : first(at * stride - 1), last(first + 3) {}  // known to be whole
    FASTNAS_INLINE int size() const { return last - first; }
};

// visit(y, x, rows, columns) for every window of the given rows in scan order. Where a window is whole the compiler
// sees it and unrolls.
template <class Visit>
FASTNAS_INLINE void each_window(Size in, int stride, Size out, Rows given, Visit visit) {
    const int right = (in.w - 2) / stride + 1;  // windows from here on reach beyond the last column
    for (int y = given.first; y < given.last; ++y) {
        const Window rows(y, stride, in.h);
        int x = 0;
        if (rows.size() == 3 && right > 1) {
            visit(y, 0, rows, Window(0, stride, in.w));
            for (x = 1; x < right && x < out.w; ++x) visit(y, x, Window(y, stride), Window(x, stride));
        }
        for (; x < out.w; ++x) visit(y, x, rows, Window(x, stride, in.w));
    }
}

// The first maximum of what it is shown, and its position. Unless all is known to be finite, a NaN is larger than
// anything before it, as in PyTorch.
template <class T, int L, bool Positions, bool Finite>
struct Maximum {
    Vec<T, L> value = Vec<T, L>{} - __builtin_inf();
    Vec<T, L> position{};

    FASTNAS_INLINE void see(Vec<T, L> v, Vec<T, L> at) {
        if constexpr (Finite) {
            if constexpr (Positions) position = v > value ? at : position;
            value = value > v ? value : v;
        } else {
            const auto larger = (v > value) | (v != v);
            value = larger ? v : value;
            if constexpr (Positions) position = larger ? at : position;
        }
    }
};

template <class T, int L>
FASTNAS_INLINE bool all_finite(const T* x, int width) {
    Vec<T, L> sum{};
    for (int i = 0; i < width; ++i) sum += load<T, L>(x + i * L) * T(0);
    bool finite = true;
    for (int l = 0; l < L; ++l) finite &= sum[l] == 0;
    return finite;
}

// Maxima of a row's windows, and their columns 0 … 2.
template <class T, int L, bool Positions, bool Finite>
FASTNAS_INLINE void column_maxima(const T* x, int width, int stride, int out_width, T* values, T* positions) {
    const auto window = [&](int column, const Window& w) FASTNAS_INLINE_LAMBDA {
        Maximum<T, L, Positions, Finite> m;
        const int left = column * stride - 1;
        m.position += T(w.first - left);
        for (int i = w.first; i < w.last; ++i) m.see(load<T, L>(x + i * L), Vec<T, L>{} + T(i - left));
        store<T, L>(values + column * L, m.value);
        if constexpr (Positions) store<T, L>(positions + column * L, m.position);
    };
    const int right = (width - 2) / stride + 1;  // windows from here on reach beyond the last column
    window(0, Window(0, stride, width));
    int column = 1;
    for (; column < right && column < out_width; ++column) window(column, Window(column, stride));
    for (; column < out_width; ++column) window(column, Window(column, stride, width));
}

// Of up to three rows of such maxima, the maxima and their positions 3·ky + kx.
template <class T, int L, bool Positions, bool Finite>
FASTNAS_INLINE void row_maxima(const T* const (&row)[3], ptrdiff_t positions_at, int first, int count, ptrdiff_t width,
                               T* values, T* positions) {
    const auto position = [&](int i, ptrdiff_t at) FASTNAS_INLINE_LAMBDA {
        return Positions ? load<T, L>(row[i] + positions_at + at) + T(3 * (first + i)) : Vec<T, L>{};
    };
    for (ptrdiff_t at = 0; at < width; at += L) {
        Maximum<T, L, Positions, Finite> m;
        m.position = position(0, at);
        for (int i = 0; i < count; ++i) m.see(load<T, L>(row[i] + at), position(i, at));
        if (values) store<T, L>(values + at, m.value);
        if constexpr (Positions) store<T, L>(positions + at, m.position);
    }
}

// The first maximum of each window, in scan order, and its position: first over the columns of each row, then over
// rows. `ring` holds three rows, their values and, with Positions, their positions. Rows that are finite, which is to
// say nearly all, go the short way.
template <class T, int L, bool Positions>
FASTNAS_INLINE void max_windows(const T* x, Size in, int stride, Size out, Rows given, T* ring, T* values,
                                T* positions) {
    const ptrdiff_t width = ptrdiff_t(out.w) * L;
    bool finite[3] = {};
    int done = Window(given.first, stride, in.h).first;
    for (int y = given.first; y < given.last; ++y) {
        const Window rows(y, stride, in.h);
        for (; done < rows.last; ++done) {
            const T* row = x + ptrdiff_t(done) * in.w * L;
            T* to = ring + done % 3 * width;
            finite[done % 3] = all_finite<T, L>(row, in.w);
            const auto run =
                finite[done % 3] ? column_maxima<T, L, Positions, true> : column_maxima<T, L, Positions, false>;
            run(row, in.w, stride, out.w, to, to + 3 * width);
        }
        const T* row[3] = {};
        bool short_way = true;
        for (int iy = rows.first; iy < rows.last; ++iy) {
            row[iy - rows.first] = ring + iy % 3 * width;
            short_way &= finite[iy % 3];
        }
        const auto run = !short_way ? row_maxima<T, L, Positions, false> : row_maxima<T, L, Positions, true>;
        run(row, 3 * width, rows.first - (y * stride - 1), rows.size(), width, values ? values + y * width : nullptr,
            positions ? positions + y * width : nullptr);
    }
}

template <class T, int L>
void max_pool(const T* x, Size in, int stride, Size out_size, Rows rows, T* scratch, T* out) {
    max_windows<T, L, false>(x, in, stride, out_size, rows, scratch, out, nullptr);
}

template <class T, int L>
void avg_pool(const T* x, Size in, int stride, Size out_size, Rows given, T* out) {
    out += ptrdiff_t(given.first) * out_size.w * L;
    each_window(in, stride, out_size, given,
                [&](int, int, const Window& rows, const Window& columns) FASTNAS_INLINE_LAMBDA {
                    Vec<T, L> sum{};
                    for (int iy = rows.first; iy < rows.last; ++iy)
                        for (int ix = columns.first; ix < columns.last; ++ix)
                            sum += load<T, L>(x + (ptrdiff_t(iy) * in.w + ix) * L);
                    store<T, L>(out, sum * (T(1) / T(rows.size() * columns.size())));
                    out += L;
                });
}

// For the given rows of grad, grad[y][x] += Σ over the windows that hold (y, x) of value(window index, position of (y,
// x) in the window).
template <class T, int L, class Value>
FASTNAS_INLINE void gather_windows(Size in, int stride, Size out, Rows rows, T* grad, Value value) {
    const auto gather = [&](int y, int x, bool inside) FASTNAS_INLINE_LAMBDA {
        T* at = grad + (ptrdiff_t(y) * in.w + x) * L;
        Vec<T, L> sum = load<T, L>(at);
#pragma GCC unroll 3
        for (int ky = 0; ky < 3; ++ky) {
            const int oy = y + 1 - ky;
            if (!inside && (oy < 0 || oy % stride || oy / stride >= out.h)) continue;
#pragma GCC unroll 3
            for (int kx = 0; kx < 3; ++kx) {
                const int ox = x + 1 - kx;
                if (!inside && (ox < 0 || ox % stride || ox / stride >= out.w)) continue;
                const ptrdiff_t window =
                    inside ? ptrdiff_t(oy) * out.w + ox : ptrdiff_t(oy / stride) * out.w + ox / stride;
                sum += value(window, 3 * ky + kx);
            }
        }
        store<T, L>(at, sum);
    };
    for (int y = rows.first; y < rows.last; ++y) {
        int x = 0;
        if (stride == 1 && y > 0 && y + 1 < in.h && in.w > 2) {
            gather(y, 0, false);
            for (x = 1; x + 1 < in.w; ++x) gather(y, x, true);
        }
        for (; x < in.w; ++x) gather(y, x, false);
    }
}

template <class T, int L>
void max_pool_grad(const T* g, const T* x, Size in, int stride, Size out_size, Rows rows, T* scratch, T* grad) {
    max_windows<T, L, true>(x, in, stride, out_size, windows_of(rows, stride, out_size.h),
                            scratch + out_size.pixels() * L, nullptr, scratch);
    gather_windows<T, L>(in, stride, out_size, rows, grad, [&](ptrdiff_t window, int k) FASTNAS_INLINE_LAMBDA {
        return load<T, L>(scratch + window * L) == T(k) ? load<T, L>(g + window * L) : Vec<T, L>{};
    });
}

template <class T, int L>
void avg_pool_grad(const T* g, Size in, int stride, Size out_size, Rows rows, T* scratch, T* grad) {
    const Rows windows = windows_of(rows, stride, out_size.h);
    ptrdiff_t p = ptrdiff_t(windows.first) * out_size.w * L;
    each_window(in, stride, out_size, windows,
                [&](int, int, const Window& rows, const Window& columns) FASTNAS_INLINE_LAMBDA {
                    store<T, L>(scratch + p, load<T, L>(g + p) * (T(1) / T(rows.size() * columns.size())));
                    p += L;
                });
    gather_windows<T, L>(in, stride, out_size, rows, grad,
                         [&](ptrdiff_t window, int) FASTNAS_INLINE_LAMBDA { return load<T, L>(scratch + window * L); });
}

}  // namespace fastnas::FASTNAS_WIDTH
