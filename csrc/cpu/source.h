// What the edges out of one source share.
#pragma once

#include "cell.h"

namespace fastnas {

// The pools of a source that edges of one stride share.
template <class T>
struct Pooled {
    T* values = nullptr;  // (N, blocks, H, W, L) of the target's size
    Partial<T> partial;
};

template <class T>
struct PooledSource {
    Pooled<T> by_stride[2][2];
    Pooled<T>& of(int stride, Candidate::Pool pool) { return by_stride[stride - 1][pool == Candidate::Pool::avg]; }

    void layout(const Cell<T>& cell, int source, int images, Arena& arena);
    // For one slab of the image x; with `moments`, also what their norms need.
    void compute(const Cell<T>& cell, int source, const Slab& slab, const T* x, bool moments, T* scratch);
};

// Padded planes of ReLU(x) of a source, all images, which its edges' depthwise convolutions share.
template <class T>
struct RectifiedSource {
    T* planes = nullptr;
    std::ptrdiff_t image_size = 0;

    void layout(const Cell<T>& cell, int source, int images, Arena& arena);
    void compute(const Cell<T>& cell, int source, const Slab& slab, const T* x) const;
    const T* image(int n) const { return planes + n * image_size; }
};

}  // namespace fastnas
