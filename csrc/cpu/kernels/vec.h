// A vector of one scalar type through the compiler's vector extension. Included once for each vector width, inside the
// namespace FASTNAS_WIDTH, so that no code compiled for a wide machine can be linked into the baseline. For the same
// reason nothing here may call an inline function of the standard library.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../kernels.h"

#define FASTNAS_INLINE_LAMBDA __attribute__((always_inline))
#define FASTNAS_INLINE inline FASTNAS_INLINE_LAMBDA

namespace fastnas::FASTNAS_WIDTH {

using std::ptrdiff_t;

// A number as a type, for lambdas that want it at compile time.
template <int N>
struct Constant {
    static constexpr int value = N;
};

template <class T>
struct Integer;
template <>
struct Integer<float> {
    using type = std::int32_t;
};
template <>
struct Integer<double> {
    using type = std::int64_t;
};

template <class T, int L>
struct Vector {
    typedef T type __attribute__((vector_size(sizeof(T) * L)));
    typedef T unaligned __attribute__((vector_size(sizeof(T) * L), aligned(sizeof(T))));
    typedef typename Integer<T>::type mask __attribute__((vector_size(sizeof(T) * L)));
};

template <class T, int L>
using Vec = typename Vector<T, L>::type;

template <class T, int L>
FASTNAS_INLINE Vec<T, L> load(const T* p) {
    return *reinterpret_cast<const Vec<T, L>*>(p);
}

template <class T, int L>
FASTNAS_INLINE void store(T* p, Vec<T, L> v) {
    *reinterpret_cast<Vec<T, L>*>(p) = v;
}

template <class T, int L>
FASTNAS_INLINE Vec<T, L> load_unaligned(const T* p) {
    return *reinterpret_cast<const typename Vector<T, L>::unaligned*>(p);
}

template <class T, int L>
FASTNAS_INLINE void store_unaligned(T* p, Vec<T, L> v) {
    *reinterpret_cast<typename Vector<T, L>::unaligned*>(p) = v;
}

// max(x, 0) that keeps NaN, as PyTorch's does.
template <class V>
FASTNAS_INLINE V relu(V x) {
    return x < 0 ? V{} : x;
}

// g where ReLU(x) lets the gradient pass; NaN passes, as in PyTorch.
template <class V>
FASTNAS_INLINE V relu_mask(V g, V x) {
    return x <= 0 ? V{} : g;
}

// Sums in T over a run of pixels, flushed into doubles, so that errors do not grow with the size of the image.
template <class T, int L>
struct Sum {
    Vec<T, L> fast{};
    FASTNAS_INLINE void flush(double* slow) {
        for (int l = 0; l < L; ++l) slow[l] += fast[l];
        fast = Vec<T, L>{};
    }
};
constexpr int kFlush = 16;  // pixels between flushes
constexpr int kRun = 128;   // pixels that a weight's gradient sums up before it adds to what it has

}  // namespace fastnas::FASTNAS_WIDTH
