// The leaf loops of the CPU backend, as a table of functions: one table for each vector width and scalar type.
//
// Activations are *blocked*: (ceil(C / L), H, W, L), where L channels are one vector; lanes beyond C hold no meaning
// and are never read back. A *padded* plane is one block with `pad` pixels left and right of every row: (H, W + 2·pad,
// L). Unless it says otherwise a function works on one block of one image; threads are the engine's business.
// Per-channel arguments are (L).
#pragma once

#include <cstddef>

// Code compiled for a wide machine must not be linked into the baseline: what both use leaves no function behind.
#define FASTNAS_ALWAYS_INLINE __attribute__((always_inline))

namespace fastnas {

struct Size {
    int h = 0, w = 0;
    FASTNAS_ALWAYS_INLINE std::ptrdiff_t pixels() const { return static_cast<std::ptrdiff_t>(h) * w; }
};

// Rows [first, last) of a plane.
struct Rows {
    int first, last;
    FASTNAS_ALWAYS_INLINE int count() const { return last - first; }
};

// The rows of a 3×3 pool's result, `height` in all, whose windows hold any of these rows of its source.
FASTNAS_ALWAYS_INLINE inline Rows windows_of(Rows rows, int stride, int height) {
    const int first = rows.first > 1 ? (rows.first + stride - 2) / stride : 0, last = rows.last / stride + 1;
    return {first, last < height ? last : height};
}

// Blocks of channels, `stride` elements apart.
template <class T>
struct Blocks {
    T* data;
    int count;
    std::ptrdiff_t stride;
    FASTNAS_ALWAYS_INLINE T* operator[](int block) const { return data + block * stride; }
    FASTNAS_ALWAYS_INLINE operator Blocks<const T>() const { return {data, count, stride}; }
};

// The pixels that a product runs over: rows that lie one after the other in what it reads, and `out_row` elements apart
// in what it writes.
struct Area {
    int rows;
    std::ptrdiff_t width, out_row;
};

// The depthwise convolutions that kernels are compiled for, each at strides 1 and 2.
struct DepthwiseShape {
    int kernel, dilation;
};
constexpr DepthwiseShape kDepthwiseShapes[] = {{3, 1}, {5, 1}, {3, 2}, {5, 2}};

// A depthwise convolution with padding dilation · (kernel / 2), from planes of size `in` to planes of size `out`.
struct Depthwise {
    int kernel, dilation, stride;
    Size in, out;
    int pad;  // of the padded planes it reads, at least dilation · (kernel / 2)
};

// A normed plane that is added to a result: (x - mean)·scale + shift.
template <class T>
struct Term {
    const T *x, *mean, *scale, *shift;
};

// A pixel and its weight.
template <class T>
struct Tap {
    int at;
    T weight;
};

// One axis of a bilinear resampling: two taps of the source for each pixel of the result, and for pixel j of the source
// the taps [starts[j], starts[j + 1]) of the result that read it.
template <class T>
struct Axis {
    const Tap<T>*taps, *readers;
    const int* starts;
};

template <class T>
struct Resampling {
    Size in, out;
    Axis<T> rows, columns;
};

constexpr int kMostLanes = 16;

template <class T>
struct Kernels {
    using Count = std::ptrdiff_t;

    int lanes;

    // From strided (strides count elements) to blocked, `channels` ≤ L, the other lanes zero; and back.
    void (*load)(const T* in, Count stride_c, Count stride_h, Count stride_w, int channels, Size size, T* out);
    void (*store)(const T* in, int channels, Size size, T* out, Count stride_c, Count stride_h, Count stride_w);

    // out = max(x, 0) and grad += x <= 0 ? 0 : g. NaN passes, as in PyTorch.
    void (*relu)(const T* x, Count pixels, T* out);
    void (*relu_grad)(const T* g, const T* x, Count pixels, T* grad);
    // g = x <= 0 ? 0 : g in an area of g, whose pixels x has one after the other.
    void (*mask)(const T* x, const Area& area, T* g);
    // Padded plane, zero outside, of x, of max(x, 0), of max((x - mean)·scale + shift, 0).
    void (*pad)(const T* x, Size size, int pad, T* out);
    void (*relu_pad)(const T* x, Size size, int pad, T* out);
    void (*norm_relu_pad)(const T* x, const T* mean, const T* scale, const T* shift, Size size, int pad, T* out);
    // Every second pixel of max(x, 0), from (offset, offset) on, zero beyond the plane; and its derivative, added to
    // grad. `out` and `g` are the given rows of a plane `width` wide.
    void (*relu_subsample)(const T* x, Size in, int offset, Rows rows, int width, T* out);
    void (*relu_subsample_grad)(const T* g, const T* x, Size in, int offset, Rows rows, int width, T* grad);
    // The given rows of max(x resampled, 0). And grad += the transposed resampling of g, whose rows are g_row elements
    // apart, for the given rows of grad; scratch is a row of the result.
    void (*relu_resample)(const Resampling<T>& by, const T* x, Rows rows, T* out);
    void (*resample_grad)(const Resampling<T>& by, const T* g, Count g_row, Rows rows, T* scratch, T* grad);

    // out[p] = Σ weight[tap]·plane[p·stride + offset(tap)] for the given rows of the result, weight (K·K, L).
    void (*depthwise)(const Depthwise& conv, const T* plane, const T* weight, Rows rows, T* out);
    // grad += x <= 0 ? 0 : v for the given rows of x, where v is the transposed convolution of the padded plane g, with
    // weights as pack_depthwise orders them. Here and below planes are whole.
    void (*depthwise_grad_relu)(const Depthwise& conv, const T* g, const T* weight, const T* x, Rows rows, T* grad);
    // grad = xn <= 0 ? 0 : v for the given rows, where xn = (z - mean)·scale + shift; adds Σ grad, Σ grad·(z - mean) to
    // sums (2, L). Stride 1.
    void (*depthwise_grad_norm)(const Depthwise& conv, const T* g, const T* weight, const T* z, const T* mean,
                                const T* scale, const T* shift, Rows rows, T* grad, double* sums);
    // acc[tap] += Σ_p g[p]·plane[p·stride + offset(tap)] over the given rows of g, both planes padded.
    void (*depthwise_weight_grad)(const Depthwise& conv, const T* plane, const T* g, Rows rows, T* acc);

    // out = W·in for all blocks of out and input channels [first, last), W as pack_pointwise orders it. With g, which
    // is like out, adds Σ g·(out - mean) to the first half of sums (blocks, 2, L); mean is (blocks, L).
    void (*pointwise)(const Blocks<const T>& in, int first, int last, const T* weight, const Area& area,
                      const Blocks<T>& out, const T* g, const T* mean, double* sums);
    // acc[ob][ci][lane] += Σ_p du[ob][p][lane]·d[ci][p] for all blocks of both.
    void (*pointwise_weight_grad)(const Blocks<const T>& du, const Blocks<const T>& d, Count pixels, T* acc);
    // out = channel < split ? a : b, for all blocks.
    void (*blend)(const Blocks<const T>& a, const Blocks<const T>& b, int split, Count pixels, const Blocks<T>& out);

    // 3×3 pools with padding 1, the given rows of the result; the mean is over the pixels that exist. Their derivatives
    // are added to the given rows of grad and read g in those of windows_of; ties of the maximum go to the first in
    // scan order. Scratch is one plane of out_size, for max_pool three rows of it, for max_pool_grad both and three
    // rows more.
    void (*max_pool)(const T* x, Size in, int stride, Size out_size, Rows rows, T* scratch, T* out);
    void (*avg_pool)(const T* x, Size in, int stride, Size out_size, Rows rows, T* out);
    void (*max_pool_grad)(const T* g, const T* x, Size in, int stride, Size out_size, Rows rows, T* scratch, T* grad);
    void (*avg_pool_grad)(const T* g, Size in, int stride, Size out_size, Rows rows, T* scratch, T* grad);

    // Its mean and Σ(x - mean)², into moments (2, L).
    void (*moments)(const T* x, Count pixels, double* moments);
    // sums += Σ g and sums += Σ g·(x - mean).
    void (*sum)(const T* g, Count pixels, double* sums);
    void (*product)(const T* g, const T* x, const T* mean, Count pixels, double* sums);

    // y = or += Σ over terms of (x - mean)·scale + shift
    void (*accumulate)(const Term<T>* terms, int count, Count pixels, bool add, T* y);
    // out = a·g + b·(x - mean) + c; without x, a·g alone.
    void (*norm_grad)(const T* g, const T* x, const T* mean, const T* a, const T* b, const T* c, Count pixels, T* out);
};

// The fastest table that this processor can run for so many channels, which should fill its vectors: with AVX-512 that
// is AVX2's for 4, 8 or 24 floats.
template <class T>
const Kernels<T>& kernels(int channels = kMostLanes);
const char* vector_width();

}  // namespace fastnas
