// A cell's tensors, filled from a seed, and the means to run it.
#pragma once

#include <cmath>
#include <limits>
#include <random>

#include "cells.h"
#include "cpu/cell.h"
#include "memory.h"

namespace fastnas::test {

enum class Kind { out, statistics, input, alpha, depthwise, pointwise, norm };

template <class T>
struct Tensor {
    Kind kind;
    std::vector<T> values;
};

template <class T>
using Tensors = std::vector<Tensor<T>>;

// Inputs, α and parameters, one after the other; running statistics; ∂L/∂out.
template <class T>
struct Problem {
    Tensors<T> leaves;
    std::vector<std::vector<T>> running;
    std::vector<T> grad;
};

struct Run {
    Memory memory = Memory::fast;
    int threads = 1;
    bool inputs = true, alpha = true, parameters = true;  // which gradients are wanted
};

// Numbers that float holds exactly, so that both precisions start from the same ones.
class Random {
  public:
    explicit Random(unsigned seed) : engine_(seed) {}

    template <class T>
    std::vector<T> normal(std::size_t count, double scale = 1) {
        std::vector<T> result(count);
        for (T& value : result) value = T(float(scale * distribution_(engine_)));
        return result;
    }

  private:
    std::mt19937 engine_;
    std::normal_distribution<double> distribution_;
};

inline Size out_size(const Case& c) {
    return c.graph.sizes(c.sizes)[c.graph.outputs[0]];
}

inline int out_channels(const Case& c) {
    int channels = 0;
    for (int state : c.graph.outputs) channels += c.graph.channels[state];
    return channels;
}

template <class T>
class Filler {
  public:
    Filler(const Case& c, unsigned seed) : case_(c), random_(seed) {}

    Problem<T> fill() {
        const Graph& graph = case_.graph;
        for (int i = 0; i < graph.inputs; ++i)
            problem_.leaves.push_back(
                {Kind::input, random_.normal<T>(case_.images * graph.channels[i] * case_.sizes[i].pixels())});
        problem_.leaves.push_back({Kind::alpha, random_.normal<T>(graph.alphas)});
        problem_.leaves.resize(graph.inputs + 1 + graph.parameters);
        problem_.running.resize(graph.running);
        for (const Edge& edge : graph.edges)
            for (const Candidate& candidate : edge.candidates) {
                if (candidate.pool != Candidate::Pool::none) norm(candidate.pool_norm);
                for (const Stage& s : candidate.stages) stage(s);
            }
        problem_.grad = random_.normal<T>(case_.images * out_channels(case_) * out_size(case_).pixels());
        return std::move(problem_);
    }

  private:
    Tensor<T>& parameter(int place) { return problem_.leaves[case_.graph.inputs + 1 + place]; }

    void stage(const Stage& stage) {
        const int taps = stage.kernel * stage.kernel, rows = stage.out_channels / stage.gathers();
        if (stage.depthwise >= 0)
            parameter(stage.depthwise) = {Kind::depthwise,
                                          random_.normal<T>(stage.in_channels * taps, 1.0 / stage.kernel)};
        for (int i = 0; i < stage.gathers(); ++i)
            parameter(stage.pointwise + i) = {
                Kind::pointwise, random_.normal<T>(rows * stage.in_channels, 1 / std::sqrt(double(stage.in_channels)))};
        norm(stage.norm);
    }

    void norm(const Norm& norm) {
        for (int place : {norm.gamma, norm.beta})
            if (place >= 0) parameter(place) = {Kind::norm, random_.normal<T>(norm.channels)};
        if (norm.running < 0) return;
        problem_.running[norm.running] = random_.normal<T>(norm.channels);
        std::vector<T>& variance = problem_.running[norm.running + 1];
        variance = random_.normal<T>(norm.channels);
        for (T& value : variance) value = std::abs(value) + T(0.5);
    }

    const Case& case_;
    Random random_;
    Problem<T> problem_;
};

template <class T>
Image<T> image(const std::vector<T>& values, int images, int channels, Size size) {
    Image<T> result{const_cast<T*>(values.data()), {images, channels, size.h, size.w}, {}};
    for (std::ptrdiff_t i = 3, stride = 1; i >= 0; stride *= result.shape[i--]) result.strides[i] = stride;
    return result;
}

// One call's memory: of forward, and of the backward that follows it.
template <class T>
class Runner {
  public:
    Runner(const Case& c, const Problem<T>& problem, const Run& run) : case_(c), problem_(problem), run_(run) {
        const Graph& graph = c.graph;
        const T nan = std::numeric_limits<T>::quiet_NaN();
        out_ = {Kind::out, std::vector<T>(problem.grad.size(), nan)};
        statistics_ = {Kind::statistics, std::vector<T>(2 * graph.statistics, nan)};
        for (int i = 0; i < graph.inputs; ++i)
            call_.inputs.push_back(image(problem.leaves[i].values, c.images, graph.channels[i], c.sizes[i]));
        call_.alpha = problem.leaves[graph.inputs].values.data();
        for (std::size_t i = graph.inputs + 1; i < problem.leaves.size(); ++i)
            call_.parameters.push_back(problem.leaves[i].values.data());
        for (const std::vector<T>& values : problem.running) call_.running.push_back(values.data());
        call_.out = image(out_.values, c.images, out_channels(c), out_size(c));
        call_.statistics = statistics_.values.data();
        call_.memory = run.memory;
        call_.threads = run.threads;
        saved_.resize(Cell<T>(graph, call_).saved_size());
        call_.saved = saved_.data();
    }

    Runner(const Runner&) = delete;
    Runner& operator=(const Runner&) = delete;

    int slabs() const { return Cell<T>(case_.graph, call_).slabs; }

    const std::vector<T>& forward() {
        fastnas::forward(case_.graph, call_);
        return out_.values;
    }

    // Output, statistics and the gradients of all leaves; empty where they were not wanted.
    Tensors<T> backward() {
        const Graph& graph = case_.graph;
        const T nan = std::numeric_limits<T>::quiet_NaN();
        Tensors<T> result{out_, statistics_};
        for (const Tensor<T>& leaf : problem_.leaves) {
            const bool wanted = leaf.kind == Kind::input   ? run_.inputs
                                : leaf.kind == Kind::alpha ? run_.alpha
                                                           : run_.parameters;
            result.push_back({leaf.kind, std::vector<T>(wanted ? leaf.values.size() : 0, nan)});
        }
        const std::size_t first = 2, alpha = first + graph.inputs;
        Gradients<T> to{image(problem_.grad, case_.images, out_channels(case_), out_size(case_)), {}, nullptr, {}};
        for (std::size_t i = first; run_.inputs && i < alpha; ++i)
            to.inputs.push_back(
                image(result[i].values, case_.images, graph.channels[i - first], case_.sizes[i - first]));
        if (run_.alpha) to.alpha = result[alpha].values.data();
        for (std::size_t i = alpha + 1; run_.parameters && i < result.size(); ++i)
            to.parameters.push_back(result[i].values.data());
        fastnas::backward(graph, call_, to);
        return result;
    }

  private:
    const Case& case_;
    const Problem<T>& problem_;
    const Run run_;
    Tensor<T> out_, statistics_;
    std::vector<T, Aligned<T>> saved_;
    Call<T> call_{};
};

template <class T>
Problem<T> fill(const Case& c, unsigned seed = 0) {
    return Filler<T>(c, seed).fill();
}

template <class T>
Tensors<T> compute(const Case& c, const Problem<T>& problem, const Run& run) {
    Runner<T> runner(c, problem, run);
    runner.forward();
    return runner.backward();
}

// Largest difference, relative to each tensor's largest value; infinite where NaN is on either side.
template <class T, class U>
double difference(const std::vector<T>& actual, const std::vector<U>& expected) {
    double worst = 0, largest = 1e-30;
    for (std::size_t i = 0; i < actual.size(); ++i) {
        const double d = std::abs(double(actual[i]) - double(expected[i]));
        worst = d <= worst ? worst : std::isnan(d) ? std::numeric_limits<double>::infinity() : d;
        largest = std::max(largest, std::abs(double(expected[i])));
    }
    return worst / largest;
}

// The same over all tensors that both hold and `chosen` takes.
template <class T, class U, class Chosen>
double difference(const Tensors<T>& actual, const Tensors<U>& expected, Chosen chosen) {
    double worst = 0;
    for (std::size_t i = 0; i < actual.size(); ++i)
        if (!actual[i].values.empty() && !expected[i].values.empty() && chosen(actual[i].kind))
            worst = std::max(worst, difference(actual[i].values, expected[i].values));
    return worst;
}

template <class T, class U>
double difference(const Tensors<T>& actual, const Tensors<U>& expected) {
    return difference(actual, expected, [](Kind) { return true; });
}

}  // namespace fastnas::test
