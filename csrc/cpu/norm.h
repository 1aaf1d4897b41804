// Batch norm as algebra on per-channel numbers (docs/engine.md): statistics of a batch from those of its images,
// the scale and shift of the forward, the coefficients and parameter gradients of the backward.
#pragma once

#include <cmath>
#include <cstddef>

#include "arena.h"
#include "graph.h"

namespace fastnas {

// What the images of a batch contribute to one norm, (N, blocks, 2, L): in forward their means and Σ(u - mean)², in
// backward two sums. One more image has room for what they give together.
template <class T>
struct Partial {
    double* sums = nullptr;
    int blocks = 0, lanes = 0;

    void layout(Arena& arena, int images, int blocks_, int lanes_) {
        blocks = blocks_;
        lanes = lanes_;
        sums = arena.take<double>(std::size_t(images + 1) * blocks * 2 * lanes);
    }
    // Those of image n's block b.
    double* at(int n, int b = 0) const { return sums + (std::ptrdiff_t(n) * blocks + b) * 2 * lanes; }
    void clear(int n) const {
        for (int i = 0; i < blocks * 2 * lanes; ++i) at(n)[i] = 0;
    }
    // Adds the moments of `more` pixels to those that `seen` pixels of an image left, by Chan's formula.
    void merge(int n, int b, double seen, double more, const double* moments) const {
        double* to = at(n, b);
        for (int l = 0; l < lanes; ++l) {
            const double delta = seen > 0 ? moments[l] - to[l] : 0, share = more / (seen + more);
            to[l] = seen > 0 ? to[l] + delta * share : moments[l];
            to[lanes + l] = (seen > 0 ? to[lanes + l] + delta * delta * seen * share : 0) + moments[lanes + l];
        }
    }
    void add_up(int images) const {
        clear(images);
        double* to = at(images);
        for (int n = 0; n < images; ++n)
            for (int i = 0; i < blocks * 2 * lanes; ++i) to[i] += at(n)[i];
    }
    // Channel c of image n: its first or second number.
    double first(int n, int c) const { return at(n, c / lanes)[c % lanes]; }
    double second(int n, int c) const { return at(n, c / lanes)[lanes + c % lanes]; }
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

// Mean and biased variance of the batch, by Chan's formula for merging the images' own.
template <class T>
void batch_statistics(const Partial<T>& partial, int images, double pixels, int channels, T* mean, T* variance) {
    partial.add_up(images);
    const int lanes = partial.lanes;
    for (int b = 0; b < partial.blocks; ++b) {
        double *centre = partial.at(images, b), *squares = centre + lanes;
        for (int l = 0; l < lanes; ++l) centre[l] /= images;
        for (int n = 0; n < images; ++n) {
            const double* means = partial.at(n, b);
            for (int l = 0; l < lanes; ++l) squares[l] += pixels * (means[l] - centre[l]) * (means[l] - centre[l]);
        }
    }
    for (int c = 0; c < channels; ++c) {
        const double squares = partial.second(images, c);
        mean[c] = T(partial.first(images, c));
        // Rounding may leave a constant channel slightly below zero; NaN stays NaN.
        variance[c] = T(squares < 0 ? 0 : squares / (images * pixels));
    }
}

// ∂u = a·g + b·(u - mean) + c, for o = α·(γ·x̂ + β).
template <class T>
struct NormGrad {
    T *a = nullptr, *b = nullptr, *c = nullptr;

    void layout(Arena& arena, int padded_channels) {
        for (T** p : {&a, &b, &c}) *p = arena.take<T>(padded_channels);
    }

    // g_sum(c) = Σ g, g_centred(c) = Σ g·(u - mean). Writes ∂γ and ∂β where given and returns ∂α.
    template <class Sum, class Centred>
    double set(const Norm& norm, const NormState<T>& state, const T* gamma, const T* beta, double alpha, double count,
               Sum g_sum, Centred g_centred, T* gamma_grad, T* beta_grad) const {
        double alpha_grad = 0;
        for (int i = 0; i < norm.channels; ++i) {
            const double s1 = g_sum(i), s2 = state.inverse[i] * g_centred(i);
            const double weight = gamma ? gamma[i] : 1;
            alpha_grad += weight * s2 + (beta ? beta[i] * s1 : 0);
            if (gamma_grad) gamma_grad[i] = T(alpha * s2);
            if (beta_grad) beta_grad[i] = T(alpha * s1);
            const double slope = alpha * weight * state.inverse[i];
            a[i] = T(slope);
            b[i] = norm.batch() ? T(-slope * state.inverse[i] * s2 / count) : T(0);
            c[i] = norm.batch() ? T(-slope * s1 / count) : T(0);
        }
        return alpha_grad;
    }
};

}  // namespace fastnas
