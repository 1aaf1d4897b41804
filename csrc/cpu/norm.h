// Batch norm as algebra on per-channel numbers (docs/engine.md): statistics of a batch from those of its images,
// the scale and shift of the forward, the coefficients and parameter gradients of the backward.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "arena.h"
#include "graph.h"

namespace fastnas {

// What the slabs of a batch (cell.h) contribute to one norm, (slabs, blocks, 2, L): in forward their means and
// Σ(u - mean)², in backward two sums. One more has room for what they give together.
template <class T>
struct Partial {
    double* sums = nullptr;
    int slabs = 0, blocks = 0, lanes = 0;

    void layout(Arena& arena, int slabs_, int blocks_, int lanes_) {
        slabs = slabs_;
        blocks = blocks_;
        lanes = lanes_;
        sums = arena.take<double>(std::size_t(slabs + 1) * blocks * 2 * lanes);
    }
    // Those of slab i's block b.
    double* at(int i, int b = 0) const { return sums + (std::ptrdiff_t(i) * blocks + b) * 2 * lanes; }
    void clear(int i) const { std::fill_n(at(i), blocks * 2 * lanes, 0.0); }
    // Adds the moments of `more` pixels to those that `seen` pixels of a slab left, by Chan's formula.
    void merge(int i, int b, double seen, double more, const double* moments) const {
        double* to = at(i, b);
        for (int l = 0; l < lanes; ++l) {
            const double delta = seen > 0 ? moments[l] - to[l] : 0, share = more / (seen + more);
            to[l] = seen > 0 ? to[l] + delta * share : moments[l];
            to[lanes + l] = (seen > 0 ? to[lanes + l] + delta * delta * seen * share : 0) + moments[lanes + l];
        }
    }
    void add_up() const {
        if (Rehearsal::is_on()) return;
        clear(slabs);
        double* to = at(slabs);
        for (int i = 0; i < slabs; ++i)
            for (int j = 0; j < blocks * 2 * lanes; ++j) to[j] += at(i)[j];
    }
    // Channel c of all together: its first or second number.
    double first(int c) const { return at(slabs, c / lanes)[c % lanes]; }
    double second(int c) const { return at(slabs, c / lanes)[lanes + c % lanes]; }
};

// A norm's constants while a cell is computed; each array has a value for every lane of its blocks.
template <class T>
struct NormState {
    T *mean = nullptr, *scale = nullptr, *shift = nullptr;  // x̂·γ + β = (x - mean)·scale + shift
    double* inverse = nullptr;                              // (variance + ε)^-½

    void layout(Arena& arena, int padded_channels) {
        for (T** p : {&mean, &scale, &shift}) *p = arena.take<T>(padded_channels);
        inverse = arena.take<double>(padded_channels);
    }

    // alpha multiplies scale and shift.
    void set(const Norm& norm, const T* means, const T* variances, const T* gamma, const T* beta, double alpha,
             int padded_channels) {
        for (int c = 0; c < padded_channels; ++c) {
            const bool real = c < norm.channels;
            mean[c] = real ? means[c] : T(0);
            inverse[c] = real ? 1 / std::sqrt(double(variances[c]) + norm.eps) : 0;
            scale[c] = real ? T(alpha * (gamma ? gamma[c] : T(1)) * inverse[c]) : T(0);
            shift[c] = real && beta ? T(alpha * beta[c]) : T(0);
        }
    }
    // No norm: alpha·x.
    void set_identity(double alpha, int padded_channels) {
        for (int c = 0; c < padded_channels; ++c) mean[c] = shift[c] = T(0), scale[c] = T(alpha), inverse[c] = 1;
    }
};

// Mean and biased variance of a batch of `count` values, pixels(i) of them in slab i, by Chan's formula for merging the
// slabs' own.
template <class T, class Pixels>
void batch_statistics(const Partial<T>& partial, double count, Pixels pixels, int channels, T* mean, T* variance) {
    if (Rehearsal::is_on()) return;
    const int slabs = partial.slabs, lanes = partial.lanes;
    partial.clear(slabs);
    for (int b = 0; b < partial.blocks; ++b) {
        double *centre = partial.at(slabs, b), *squares = centre + lanes;
        for (int i = 0; i < slabs; ++i) {
            const double *means = partial.at(i, b), weight = pixels(i) * slabs / count;
            for (int l = 0; l < lanes; ++l) centre[l] += weight * means[l], squares[l] += means[lanes + l];
        }
        for (int l = 0; l < lanes; ++l) centre[l] /= slabs;
        for (int i = 0; i < slabs; ++i) {
            const double *means = partial.at(i, b), weight = pixels(i);
            for (int l = 0; l < lanes; ++l) squares[l] += weight * (means[l] - centre[l]) * (means[l] - centre[l]);
        }
    }
    for (int c = 0; c < channels; ++c) {
        mean[c] = T(partial.first(c));
        variance[c] = T(partial.second(c) / count);
    }
}

// ∂u = a·g + b·(u - mean) + c, for o = α·(γ·x̂ + β).
template <class T>
struct NormGrad {
    T *a = nullptr, *b = nullptr, *c = nullptr;

    void layout(Arena& arena, int padded_channels) {
        for (T** p : {&a, &b, &c}) *p = arena.take<T>(padded_channels);
    }

    // g_sum(c) = Σ g, g_centred(c) = Σ g·(u - mean). Adds to ∂γ and ∂β where given and returns ∂α.
    template <class Sum, class Centred>
    double set(const Norm& norm, const NormState<T>& state, const T* gamma, const T* beta, double alpha, double count,
               Sum g_sum, Centred g_centred, T* gamma_grad, T* beta_grad) const {
        double alpha_grad = 0;
        for (int i = 0; i < norm.channels; ++i) {
            const double s1 = g_sum(i), s2 = state.inverse[i] * g_centred(i);
            const double weight = gamma ? gamma[i] : 1;
            alpha_grad += weight * s2 + (beta ? beta[i] * s1 : 0);
            if (gamma_grad) gamma_grad[i] += T(alpha * s2);
            if (beta_grad) beta_grad[i] += T(alpha * s1);
            const double slope = alpha * weight * state.inverse[i];
            a[i] = T(slope);
            b[i] = norm.batch() ? T(-slope * state.inverse[i] * s2 / count) : T(0);
            c[i] = norm.batch() ? T(-slope * s1 / count) : T(0);
        }
        return alpha_grad;
    }
};

}  // namespace fastnas
