// The table of one vector width: FASTNAS_WIDTH names its namespace, FASTNAS_BYTES is the size of a vector,
// FASTNAS_REGISTERS their number.
#pragma once

#include <iterator>

#include "depthwise.h"
#include "elementwise.h"
#include "layout.h"
#include "pointwise.h"
#include "pool.h"
#include "resample.h"

namespace fastnas::FASTNAS_WIDTH {

// Calls run(K, D, S) with the numbers of `conv`, one of kDepthwiseShapes, as constants.
template <std::size_t I = 0, class Run>
FASTNAS_INLINE void dispatch(const Depthwise& conv, Run run) {
    constexpr DepthwiseShape shape = kDepthwiseShapes[I];
    const auto stride = [&](auto s) { run(Constant<shape.kernel>{}, Constant<shape.dilation>{}, s); };
    if (conv.kernel == shape.kernel && conv.dilation == shape.dilation)
        conv.stride == 1 ? stride(Constant<1>{}) : stride(Constant<2>{});
    else if constexpr (I + 1 < std::size(kDepthwiseShapes))
        dispatch<I + 1>(conv, run);
}

template <class T, int L>
void run_depthwise(const Depthwise& conv, const T* plane, const T* weight, Rows rows, T* out) {
    dispatch(conv, [&](auto k, auto d, auto s) {
        depthwise<T, L, decltype(k)::value, decltype(d)::value, decltype(s)::value>(conv, plane, weight, rows, out);
    });
}

template <class T, int L>
void run_depthwise_grad_relu(const Depthwise& conv, const T* g, const T* weight, const T* x, Rows rows, T* grad) {
    dispatch(conv, [&](auto k, auto d, auto s) {
        depthwise_grad_relu<T, L, decltype(k)::value, decltype(d)::value, decltype(s)::value>(conv, g, weight, x, rows,
                                                                                              grad);
    });
}

template <class T, int L>
void run_depthwise_grad_norm(const Depthwise& conv, const T* g, const T* weight, const T* z, const T* mean,
                             const T* scale, const T* shift, Rows rows, T* grad, double* sums) {
    dispatch(conv, [&](auto k, auto d, auto) {
        depthwise_grad_norm<T, L, decltype(k)::value, decltype(d)::value>(conv, g, weight, z, mean, scale, shift, rows,
                                                                          grad, sums);
    });
}

template <class T, int L>
void run_depthwise_weight_grad(const Depthwise& conv, const T* plane, const T* g, Rows rows, T* acc) {
    dispatch(conv, [&](auto k, auto d, auto s) {
        depthwise_weight_grad<T, L, decltype(k)::value, decltype(d)::value, decltype(s)::value>(conv, plane, g, rows,
                                                                                                acc);
    });
}

template <class T, int L>
constexpr Kernels<T> make_table() {
    return {
        L,
        load_block<T, L>,
        store_block<T, L>,
        relu_block<T, L>,
        relu_grad<T, L>,
        mask_rows<T, L>,
        pad_block<T, L>,
        relu_pad<T, L>,
        norm_relu_pad<T, L>,
        relu_subsample<T, L>,
        relu_subsample_grad<T, L>,
        relu_resample<T, L>,
        resample_grad<T, L>,
        run_depthwise<T, L>,
        run_depthwise_grad_relu<T, L>,
        run_depthwise_grad_norm<T, L>,
        run_depthwise_weight_grad<T, L>,
        pointwise<T, L>,
        pointwise_weight_grad<T, L>,
        blend<T, L>,
        max_pool<T, L>,
        avg_pool<T, L>,
        max_pool_grad<T, L>,
        avg_pool_grad<T, L>,
        moments<T, L>,
        sum<T, L>,
        product<T, L>,
        accumulate<T, L>,
        norm_grad<T, L>,
    };
}

template <class T>
inline constexpr Kernels<T> table = make_table<T, FASTNAS_BYTES / sizeof(T)>();

}  // namespace fastnas::FASTNAS_WIDTH
