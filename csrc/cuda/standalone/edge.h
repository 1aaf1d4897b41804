// A DARTS mixed edge in scalar loops over doubles: each operation and its derivative, written down one after the other.
// It shares nothing with the kernels, which it is there to check.
#pragma once

#include <cmath>
#include <vector>

namespace fastnas::plain {

// (N, C, H, W)
struct Array {
    int n, c, h, w;
    std::vector<double> values;
    Array(int n_, int c_, int h_, int w_) : n(n_), c(c_), h(h_), w(w_), values(std::size_t(n) * c * h * w) {}
    double& at(int i, int j, int y, int x) { return values[((std::size_t(i) * c + j) * h + y) * w + x]; }
    double at(int i, int j, int y, int x) const { return const_cast<Array*>(this)->at(i, j, y, x); }
    bool has(int y, int x) const { return y >= 0 && y < h && x >= 0 && x < w; }
    Array like() const { return Array(n, c, h, w); }
};

template <class Body>
void each(const Array& a, Body body) {
    for (int i = 0; i < a.n; ++i)
        for (int j = 0; j < a.c; ++j)
            for (int y = 0; y < a.h; ++y)
                for (int x = 0; x < a.w; ++x) body(i, j, y, x);
}

inline int halved(int size, int stride) {
    return (size + stride - 1) / stride;
}

// A weight and its gradient.
struct Weight {
    std::vector<double> values, grad;
};

// Keeps what its backward needs. Gradients of inputs are returned, those of weights added up.
struct Relu {
    Array x{0, 0, 0, 0};
    Array forward(const Array& in) {
        x = in;
        Array out = in;
        for (double& value : out.values) value = value > 0 ? value : 0;
        return out;
    }
    Array backward(Array grad) const {
        for (std::size_t i = 0; i < grad.values.size(); ++i)
            if (x.values[i] <= 0) grad.values[i] = 0;
        return grad;
    }
    // How near to 0 an input comes, where rounding would turn the mask.
    double margin() const {
        double least = INFINITY;
        for (double value : x.values) least = std::fmin(least, std::fabs(value));
        return least;
    }
};

struct Depthwise {
    Weight& weight;
    int kernel, dilation, stride;
    Array x{0, 0, 0, 0};

    template <class Body>
    void each_tap(const Array& out, Body body) const {
        const int padding = dilation * (kernel / 2);
        each(out, [&](int i, int j, int y, int x_) {
            for (int a = 0; a < kernel; ++a)
                for (int b = 0; b < kernel; ++b) {
                    const int row = stride * y - padding + dilation * a, column = stride * x_ - padding + dilation * b;
                    if (x.has(row, column)) body(i, j, y, x_, row, column, (j * kernel + a) * kernel + b);
                }
        });
    }
    Array forward(const Array& in) {
        x = in;
        Array out(x.n, x.c, halved(x.h, stride), halved(x.w, stride));
        each_tap(out, [&](int i, int j, int y, int x_, int row, int column, int tap) {
            out.at(i, j, y, x_) += weight.values[tap] * x.at(i, j, row, column);
        });
        return out;
    }
    Array backward(const Array& grad) {
        Array result = x.like();
        each_tap(grad, [&](int i, int j, int y, int x_, int row, int column, int tap) {
            weight.grad[tap] += grad.at(i, j, y, x_) * x.at(i, j, row, column);
            result.at(i, j, row, column) += grad.at(i, j, y, x_) * weight.values[tap];
        });
        return result;
    }
};

// From pixels (stride·y + shift, stride·x + shift), zero outside.
struct Pointwise {
    Weight& weight;
    int out_channels, stride = 1, shift = 0;
    Array x{0, 0, 0, 0};

    Array forward(const Array& in) {
        x = in;
        Array out(x.n, out_channels, halved(x.h, stride), halved(x.w, stride));
        each(out, [&](int i, int j, int y, int x_) {
            for (int k = 0; k < x.c && x.has(stride * y + shift, stride * x_ + shift); ++k)
                out.at(i, j, y, x_) += weight.values[j * x.c + k] * x.at(i, k, stride * y + shift, stride * x_ + shift);
        });
        return out;
    }
    Array backward(const Array& grad) {
        Array result = x.like();
        each(grad, [&](int i, int j, int y, int x_) {
            const int row = stride * y + shift, column = stride * x_ + shift;
            for (int k = 0; k < x.c && x.has(row, column); ++k) {
                weight.grad[j * x.c + k] += grad.at(i, j, y, x_) * x.at(i, k, row, column);
                result.at(i, k, row, column) += grad.at(i, j, y, x_) * weight.values[j * x.c + k];
            }
        });
        return result;
    }
};

struct Pool {
    bool max;
    int stride;
    Array x{0, 0, 0, 0};

    // Rows and columns that a window covers, one after the other.
    std::vector<std::pair<int, int>> window(int y, int x_) const {
        std::vector<std::pair<int, int>> result;
        for (int a = -1; a <= 1; ++a)
            for (int b = -1; b <= 1; ++b)
                if (x.has(stride * y + a, stride * x_ + b)) result.push_back({stride * y + a, stride * x_ + b});
        return result;
    }
    std::pair<int, int> winner(int i, int j, const std::vector<std::pair<int, int>>& window) const {
        std::pair<int, int> best = window[0];
        for (const auto& place : window)
            if (x.at(i, j, place.first, place.second) > x.at(i, j, best.first, best.second)) best = place;
        return best;
    }
    Array forward(const Array& in) {
        x = in;
        Array out(x.n, x.c, halved(x.h, stride), halved(x.w, stride));
        each(out, [&](int i, int j, int y, int x_) {
            const auto places = window(y, x_);
            const auto best = winner(i, j, places);
            double sum = 0;
            for (const auto& [row, column] : places) sum += x.at(i, j, row, column);
            out.at(i, j, y, x_) = max ? x.at(i, j, best.first, best.second) : sum / double(places.size());
        });
        return out;
    }
    Array backward(const Array& grad) const {
        Array result = x.like();
        each(grad, [&](int i, int j, int y, int x_) {
            const auto places = window(y, x_);
            const auto best = winner(i, j, places);
            const double g = grad.at(i, j, y, x_);
            if (max) result.at(i, j, best.first, best.second) += g;
            for (const auto& [row, column] : places)
                if (!max) result.at(i, j, row, column) += g / double(places.size());
        });
        return result;
    }
};

struct BatchNorm {
    double eps = 1e-5;
    Array out{0, 0, 0, 0};
    std::vector<double> inverse;

    Array forward(const Array& in) {
        out = in;
        inverse.assign(in.c, 0);
        const double count = double(in.n) * in.h * in.w;
        std::vector<double> mean(in.c), variance(in.c);
        each(in, [&](int i, int j, int y, int x) { mean[j] += in.at(i, j, y, x) / count; });
        each(in, [&](int i, int j, int y, int x) {
            const double apart = in.at(i, j, y, x) - mean[j];
            variance[j] += apart * apart / count;
        });
        for (int j = 0; j < in.c; ++j) inverse[j] = 1 / std::sqrt(variance[j] + eps);
        each(in, [&](int i, int j, int y, int x) { out.at(i, j, y, x) = (in.at(i, j, y, x) - mean[j]) * inverse[j]; });
        return out;
    }
    Array backward(const Array& grad) const {
        const double count = double(grad.n) * grad.h * grad.w;
        std::vector<double> sum(grad.c), product(grad.c);
        each(grad, [&](int i, int j, int y, int x) {
            sum[j] += grad.at(i, j, y, x);
            product[j] += grad.at(i, j, y, x) * out.at(i, j, y, x);
        });
        Array result = grad.like();
        each(grad, [&](int i, int j, int y, int x) {
            result.at(i, j, y, x) =
                inverse[j] * (grad.at(i, j, y, x) - sum[j] / count - out.at(i, j, y, x) * product[j] / count);
        });
        return result;
    }
};

// A stage of a convolution.
struct Stage {
    Relu relu;
    Depthwise depthwise;
    Pointwise pointwise;
    BatchNorm norm;
    Array forward(const Array& x) { return norm.forward(pointwise.forward(depthwise.forward(relu.forward(x)))); }
    Array backward(const Array& grad) {
        return relu.backward(depthwise.backward(pointwise.backward(norm.backward(grad))));
    }
};

struct Edge {
    int channels, stride;
    std::vector<double> alpha, alpha_grad;
    std::vector<Weight> weights;  // in the order of fastnas/ops/spec.py

    Edge(int channels_, int stride_) : channels(channels_), stride(stride_), alpha(8), alpha_grad(8) {
        const std::size_t square = std::size_t(channels) * channels;
        std::vector<std::size_t> sizes;
        if (stride == 2) sizes.insert(sizes.end(), 2, channels / 2 * std::size_t(channels));
        for (int taps : {9, 9, 25, 25, 9, 25}) sizes.insert(sizes.end(), {std::size_t(channels) * taps, square});
        for (std::size_t size : sizes) weights.push_back({std::vector<double>(size), std::vector<double>(size)});
    }

    // Returns y, fills all gradients, and ∂x.
    Array run(const Array& x, const Array& grad, Array& x_grad) {
        Array y = grad.like();
        margin = INFINITY;
        int next = 0;
        const auto add = [&](int candidate, const Array& o, auto backward) {
            Array weighted = grad;
            for (std::size_t i = 0; i < y.values.size(); ++i) {
                y.values[i] += alpha[candidate] * o.values[i];
                alpha_grad[candidate] += grad.values[i] * o.values[i];
                weighted.values[i] *= alpha[candidate];
            }
            const Array back = backward(weighted);
            for (std::size_t i = 0; i < x_grad.values.size(); ++i) x_grad.values[i] += back.values[i];
        };
        for (int candidate : {1, 2}) {
            Pool pool{candidate == 1, stride};
            BatchNorm norm;
            add(candidate, norm.forward(pool.forward(x)),
                [&](const Array& g) { return pool.backward(norm.backward(g)); });
        }
        if (stride == 1)
            add(3, x, [&](const Array& g) { return g; });
        else
            reduce(x, add, next);
        struct Shape {
            int kernel, dilation, stages;
        };
        int candidate = 4;
        for (const Shape shape : {Shape{3, 1, 2}, Shape{5, 1, 2}, Shape{3, 2, 1}, Shape{5, 2, 1}}) {
            std::vector<Stage> stages;
            for (int s = 0; s < shape.stages; ++s, next += 2)
                stages.push_back({{},
                                  {weights[next], shape.kernel, shape.dilation, s ? 1 : stride},
                                  {weights[next + 1], channels},
                                  {}});
            Array o = x;
            for (Stage& stage : stages) o = stage.forward(o);
            if (shape.stages == 2) margin = std::fmin(margin, stages[1].relu.margin());
            add(candidate++, o, [&](Array g) {
                for (std::size_t s = stages.size(); s-- > 0;) g = stages[s].backward(g);
                return g;
            });
        }
        return y;
    }

    double margin = 0;  // the least |x̂| that a second stage's ReLU met

  private:
    // A factorised reduce: two halves of the channels, from even pixels and from odd ones.
    template <class Add>
    void reduce(const Array& x, Add add, int& next) {
        Relu relu;
        BatchNorm norm;
        const Array rectified = relu.forward(x);
        Pointwise halves[2] = {{weights[next], channels / 2, 2, 0}, {weights[next + 1], channels / 2, 2, 1}};
        next += 2;
        const Array first = halves[0].forward(rectified), second = halves[1].forward(rectified);
        Array u(x.n, channels, first.h, first.w);
        each(u, [&](int i, int j, int y, int x_) {
            u.at(i, j, y, x_) = j < channels / 2 ? first.at(i, j, y, x_) : second.at(i, j - channels / 2, y, x_);
        });
        add(3, norm.forward(u), [&](const Array& g) {
            const Array back = norm.backward(g);
            Array result = x.like();
            for (int part = 0; part < 2; ++part) {
                Array half = first.like();
                each(half, [&](int i, int j, int y, int x_) {
                    half.at(i, j, y, x_) = back.at(i, j + part * (channels / 2), y, x_);
                });
                const Array given = halves[part].backward(half);
                for (std::size_t i = 0; i < result.values.size(); ++i) result.values[i] += given.values[i];
            }
            return relu.backward(result);
        });
    }
};

}  // namespace fastnas::plain
