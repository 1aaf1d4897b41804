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

// visit(y, x, rows, columns) for every window in scan order. Where a window is whole the compiler sees it and unrolls.
template <class Visit>
FASTNAS_INLINE void each_window(Size in, int stride, Size out, Visit visit) {
    const int right = (in.w - 2) / stride + 1;  // windows from here on reach beyond the last column
    for (int y = 0; y < out.h; ++y) {
        const Window rows(y, stride, in.h);
        int x = 0;
        if (rows.size() == 3 && right > 1) {
            visit(y, 0, rows, Window(0, stride, in.w));
            for (x = 1; x < right && x < out.w; ++x) visit(y, x, Window(y, stride), Window(x, stride));
        }
        for (; x < out.w; ++x) visit(y, x, rows, Window(x, stride, in.w));
    }
}

// The first maximum of a window in scan order and its position 3·ky + kx; a NaN is larger than anything before it, as
// in PyTorch.
template <class T, int L>
struct Maximum {
    Vec<T, L> value = Vec<T, L>{} - __builtin_inf();
    Vec<T, L> position{};

    FASTNAS_INLINE Maximum(const T* x, int width, int y, int column, int stride, const Window& rows,
                           const Window& columns) {
        const int top = y * stride - 1, left = column * stride - 1;
        position += T(3 * (rows.first - top) + columns.first - left);
        for (int iy = rows.first; iy < rows.last; ++iy)
            for (int ix = columns.first; ix < columns.last; ++ix) {
                const Vec<T, L> v = load<T, L>(x + (ptrdiff_t(iy) * width + ix) * L);
                const auto larger = (v > value) | (v != v);
                value = larger ? v : value;
                position = larger ? Vec<T, L>{} + T(3 * (iy - top) + ix - left) : position;
            }
    }
};

template <class T, int L>
void max_pool(const T* x, Size in, int stride, Size out_size, T* out) {
    each_window(in, stride, out_size, [&](int y, int column, const Window& rows, const Window& columns) {
        store<T, L>(out, Maximum<T, L>(x, in.w, y, column, stride, rows, columns).value);
        out += L;
    });
}

template <class T, int L>
void avg_pool(const T* x, Size in, int stride, Size out_size, T* out) {
    each_window(in, stride, out_size, [&](int, int, const Window& rows, const Window& columns) {
        Vec<T, L> sum{};
        for (int iy = rows.first; iy < rows.last; ++iy)
            for (int ix = columns.first; ix < columns.last; ++ix)
                sum += load<T, L>(x + (ptrdiff_t(iy) * in.w + ix) * L);
        store<T, L>(out, sum / T(rows.size() * columns.size()));
        out += L;
    });
}

// grad[y][x] += Σ over the windows that hold (y, x) of value(window index, position of (y, x) in the window).
template <class T, int L, class Value>
FASTNAS_INLINE void gather_windows(Size in, int stride, Size out, T* grad, Value value) {
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
    for (int y = 0; y < in.h; ++y) {
        int x = 0;
        if (stride == 1 && y > 0 && y + 1 < in.h && in.w > 2) {
            gather(y, 0, false);
            for (x = 1; x + 1 < in.w; ++x) gather(y, x, true);
        }
        for (; x < in.w; ++x) gather(y, x, false);
    }
}

template <class T, int L>
void max_pool_grad(const T* g, const T* x, Size in, int stride, Size out_size, T* scratch, T* grad) {
    T* position = scratch;
    each_window(in, stride, out_size, [&](int y, int column, const Window& rows, const Window& columns) {
        store<T, L>(position, Maximum<T, L>(x, in.w, y, column, stride, rows, columns).position);
        position += L;
    });
    gather_windows<T, L>(in, stride, out_size, grad, [&](ptrdiff_t window, int k) {
        return load<T, L>(scratch + window * L) == T(k) ? load<T, L>(g + window * L) : Vec<T, L>{};
    });
}

template <class T, int L>
void avg_pool_grad(const T* g, Size in, int stride, Size out_size, T* scratch, T* grad) {
    ptrdiff_t p = 0;
    each_window(in, stride, out_size, [&](int, int, const Window& rows, const Window& columns) {
        store<T, L>(scratch + p, load<T, L>(g + p) / T(rows.size() * columns.size()));
        p += L;
    });
    gather_windows<T, L>(in, stride, out_size, grad,
                         [&](ptrdiff_t window, int) { return load<T, L>(scratch + window * L); });
}

}  // namespace fastnas::FASTNAS_WIDTH
