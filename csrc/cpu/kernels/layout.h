// Between PyTorch's strided layouts and blocked planes, and the planes that convolutions read.
#pragma once

#include "vec.h"

namespace fastnas::FASTNAS_WIDTH {

// One step of a transposition: interleaves rows i and i + L/2. After log2(L) steps rows are columns.
template <class T, int L>
FASTNAS_INLINE void interleave(Vec<T, L> (&rows)[L]) {
    typename Vector<T, L>::mask low, high;
    for (int l = 0; l < L; ++l) {
        low[l] = (l & 1) * L + l / 2;
        high[l] = low[l] + L / 2;
    }
    Vec<T, L> mixed[L];
#pragma GCC unroll 16
    for (int i = 0; i < L / 2; ++i) {
        mixed[2 * i] = __builtin_shuffle(rows[i], rows[i + L / 2], low);
        mixed[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + L / 2], high);
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) rows[i] = mixed[i];
}

template <class T, int L>
FASTNAS_INLINE void transpose(Vec<T, L> (&rows)[L]) {
#pragma GCC unroll 4
    for (int n = L; n > 1; n /= 2) interleave<T, L>(rows);
}

// One long row where rows lie one after the other, so that short ones fill vectors too.
FASTNAS_INLINE Size joined_rows(Size size, ptrdiff_t stride_h, ptrdiff_t stride_w) {
    return stride_h == size.w * stride_w ? Size{1, size.h * size.w} : size;
}

template <class T, int L>
void load_block(const T* in, ptrdiff_t stride_c, ptrdiff_t stride_h, ptrdiff_t stride_w, int channels, Size size,
                T* out) {
    size = joined_rows(size, stride_h, stride_w);
    for (int y = 0; y < size.h; ++y, in += stride_h, out += size.w * L) {
        int x = 0;
        if (stride_w == 1 && channels == L) {
            for (; x + L <= size.w; x += L) {
                Vec<T, L> rows[L];
                for (int c = 0; c < L; ++c) rows[c] = load_unaligned<T, L>(in + c * stride_c + x);
                transpose<T, L>(rows);
                for (int p = 0; p < L; ++p) store<T, L>(out + (x + p) * L, rows[p]);
            }
        } else if (stride_c == 1 && channels == L) {
            for (; x < size.w; ++x) store<T, L>(out + x * L, load_unaligned<T, L>(in + x * stride_w));
        }
        for (; x < size.w; ++x)
            for (int c = 0; c < L; ++c) out[x * L + c] = c < channels ? in[c * stride_c + x * stride_w] : T(0);
    }
}

template <class T, int L>
void store_block(const T* in, int channels, Size size, T* out, ptrdiff_t stride_c, ptrdiff_t stride_h,
                 ptrdiff_t stride_w) {
    size = joined_rows(size, stride_h, stride_w);
    for (int y = 0; y < size.h; ++y, in += size.w * L, out += stride_h) {
        int x = 0;
        if (stride_w == 1 && channels == L) {
            for (; x + L <= size.w; x += L) {
                Vec<T, L> rows[L];
                for (int p = 0; p < L; ++p) rows[p] = load<T, L>(in + (x + p) * L);
                transpose<T, L>(rows);
                for (int c = 0; c < L; ++c) store_unaligned<T, L>(out + c * stride_c + x, rows[c]);
            }
        } else if (stride_c == 1 && channels == L) {
            for (; x < size.w; ++x) store_unaligned<T, L>(out + x * stride_w, load<T, L>(in + x * L));
        }
        for (; x < size.w; ++x)
            for (int c = 0; c < channels; ++c) out[c * stride_c + x * stride_w] = in[x * L + c];
    }
}

// Calls value(pixel index) for every pixel and writes its result into a padded plane.
template <class T, int L, class Value>
FASTNAS_INLINE void write_padded(Size size, int pad, T* out, Value value) {
    ptrdiff_t p = 0;
    for (int y = 0; y < size.h; ++y) {
        for (int x = 0; x < pad; ++x, out += L) store<T, L>(out, Vec<T, L>{});
        for (int x = 0; x < size.w; ++x, ++p, out += L) store<T, L>(out, value(p));
        for (int x = 0; x < pad; ++x, out += L) store<T, L>(out, Vec<T, L>{});
    }
}

template <class T, int L>
void pad_block(const T* x, Size size, int pad, T* out) {
    write_padded<T, L>(size, pad, out, [=](ptrdiff_t p) { return load<T, L>(x + p * L); });
}

template <class T, int L>
void relu_pad(const T* x, Size size, int pad, T* out) {
    write_padded<T, L>(size, pad, out, [=](ptrdiff_t p) { return relu(load<T, L>(x + p * L)); });
}

template <class T, int L>
void norm_relu_pad(const T* x, const T* mean, const T* scale, const T* shift, Size size, int pad, T* out) {
    const auto m = load<T, L>(mean), s = load<T, L>(scale), t = load<T, L>(shift);
    write_padded<T, L>(size, pad, out, [=](ptrdiff_t p) { return relu((load<T, L>(x + p * L) - m) * s + t); });
}

template <class T, int L>
void relu_subsample(const T* x, Size in, int offset, Rows rows, int width, T* out) {
    for (int y = rows.first; y < rows.last; ++y)
        for (int i = 0; i < width; ++i, out += L) {
            const int iy = 2 * y + offset, ix = 2 * i + offset;
            const bool inside = iy < in.h && ix < in.w;
            store<T, L>(out, inside ? relu(load<T, L>(x + (ptrdiff_t(iy) * in.w + ix) * L)) : Vec<T, L>{});
        }
}

template <class T, int L>
void relu_subsample_grad(const T* g, const T* x, Size in, int offset, Rows rows, int width, T* grad) {
    for (int y = rows.first; y < rows.last; ++y)
        for (int i = 0; i < width; ++i, g += L) {
            const int iy = 2 * y + offset, ix = 2 * i + offset;
            if (iy >= in.h || ix >= in.w) continue;
            const ptrdiff_t at = (ptrdiff_t(iy) * in.w + ix) * L;
            store<T, L>(grad + at, load<T, L>(grad + at) + relu_mask(load<T, L>(g), load<T, L>(x + at)));
        }
}

}  // namespace fastnas::FASTNAS_WIDTH
