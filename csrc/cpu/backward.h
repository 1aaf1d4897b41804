// What a cell's backward shares between the level of states (backward.cpp) and that of edges (edge_backward.h).
#pragma once

#include <vector>

#include "source.h"

namespace fastnas {

template <class T>
struct BackwardThread : ThreadScratch<T> {
    int number;
    T* du;         // a band of the gradient of a stage's 1×1 convolution
    T* pool_grad;  // the gradient of a block of a pool
};

// The gradient of what 1×1 convolutions read in stages whose gather overlaps, in padded planes: of the image that a
// thread works on, or of every image where threads share one.
template <class T>
struct GatheredGrad {
    std::vector<T*> planes;
    std::ptrdiff_t size = 0;
    Size margins{};  // size of the planes whose margins are zero

    T* at(const Slab& slab, int slabs, int thread) const { return planes[slabs > 1 ? slab.image : thread]; }

    // What is written leaves the margins as they are, so they are cleared once for a size.
    void clear_margins(Size to, int threads) {
        if (margins.h == to.h && margins.w == to.w) return;
        parallel_for(threads, int(planes.size()), [this](int i, int) { std::fill_n(planes[i], size, T(0)); });
        margins = to;
    }
};

// A norm's sums and coefficients.
template <class T>
struct NormScratch {
    Partial<T> partial;
    NormState<T> norm;
    NormGrad<T> norm_grad;

    void layout(const Cell<T>& cell, int state, Arena& arena) {
        const int padded = cell.padded(cell.graph.channels[state]);
        partial.layout(arena, cell.images * cell.slabs, padded / cell.lanes, cell.lanes);
        norm.layout(arena, padded);
        norm_grad.layout(arena, padded);
    }
};

template <class T>
struct Backward : Cell<T> {
    Backward(const Graph& graph, const Call<T>& call, const Gradients<T>& gradients)
        : Cell<T>(graph, call), to(gradients), alpha_grad(graph.alphas, 0.0) {}

    const Gradients<T>& to;
    std::vector<double> alpha_grad;
    std::vector<T*> grads;                  // blocked, all images; null where not wanted
    std::vector<Partial<T>> gradient_sums;  // Σ g of every state
    std::vector<BackwardThread<T>> threads;
    GatheredGrad<T> gathered_grad;
    // Of the current source:
    const T* x = nullptr;  // blocked, all images; null where no derivative reads it
    PooledSource<T> pooled;
    RectifiedSource<T> rectified;

    bool wants(int state) const { return !this->graph.is_input(state) || !to.inputs.empty(); }
    bool wants_parameters() const { return !to.parameters.empty(); }
    T* grad(int state, int n) const { return grads[state] + n * this->image_size(state); }
    const T* source_image(int source, int n) const { return x ? x + n * this->image_size(source) : nullptr; }

    // Coefficients of a norm, from Σ g and Σ g·(u - mean) of its channels; adds to ∂γ and ∂β. Returns ∂α.
    template <class Sum, class Centred>
    double norm_gradients(const Norm& norm, const NormScratch<T>& own, int state, double alpha, Sum g_sum,
                          Centred g_centred) const {
        return own.norm_grad.set(norm, own.norm, this->call.parameter(norm.gamma), this->call.parameter(norm.beta),
                                 alpha, this->count(state), g_sum, g_centred, to.parameter(norm.gamma),
                                 to.parameter(norm.beta));
    }
    // The same of a candidate's last norm, whose products have been added up; also ∂α.
    void last_norm_gradients(const Candidate& candidate, const Norm& norm, const NormScratch<T>& own, int target) {
        const double alpha_gradient = norm_gradients(
            norm, own, target, this->call.weight(candidate), [&](int c) { return gradient_sums[target].first(c); },
            [&](int c) { return own.partial.first(c); });
        if (candidate.alpha >= 0) alpha_grad[candidate.alpha] += alpha_gradient;
    }

    // Weights of a stage as its derivative reads them, and their gradients.
    std::size_t packed_back_size(const Stage& stage) const {
        const int rows = stage.out_channels / stage.gathers();
        return stage.gathers() * packed_pointwise_size(rows, stage.in_channels, this->lanes);
    }
    std::size_t pointwise_grad_size(const Stage& stage) const {
        return std::size_t(stage.gathers()) * this->padded(stage.in_channels) * this->padded(stage.out_channels);
    }
    void pack_back(const Stage& stage, T* pointwise, T* depthwise) const {
        const int rows = stage.out_channels / stage.gathers();
        for (int i = 0; i < stage.gathers(); ++i)
            pack_pointwise(this->k, this->call.parameters[stage.pointwise + i], stage.in_channels, rows, true, 0,
                           stage.in_channels, pointwise + i * packed_back_size(stage) / 2);
        if (stage.kind == Stage::Kind::depthwise)
            pack_depthwise(this->call.parameters[stage.depthwise], stage.in_channels, stage.kernel, stage.dilation,
                           stage.stride, true, this->lanes, depthwise);
    }
    void unpack_grads(const Stage& stage, const T* pointwise, const T* depthwise) const {
        const int rows = stage.out_channels / stage.gathers();
        for (int i = 0; i < stage.gathers(); ++i)
            unpack_pointwise_grad(this->k, pointwise + i * pointwise_grad_size(stage) / 2, i * rows, rows,
                                  stage.in_channels, to.parameters[stage.pointwise + i]);
        if (stage.kind == Stage::Kind::depthwise)
            unpack_depthwise_grad(depthwise, stage.in_channels, stage.kernel * stage.kernel, this->lanes,
                                  to.parameters[stage.depthwise]);
    }
};

}  // namespace fastnas
