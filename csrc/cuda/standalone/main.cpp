// Runs every CUDA kernel on a mixed edge, forward and backward, and compares all results with scalar loops on the host.
//
//     cuda-standalone [N C H W stride seed]
//
// The exit code is 0 only if all agree.
#include <cstdio>
#include <cstdlib>
#include <random>

#include "../../gpu/plan.h"
#include "device.h"
#include "edge.h"

using namespace fastnas;

namespace {

constexpr double kBound = 1e-4;   // of an error, relative to the largest value of a result; float has 6e-8 a step
constexpr double kMargin = 2e-6;  // an x̂ nearer to 0 than this may be on its other side in float
constexpr int kElements = 2048, kLeast = 4, kMost = 128;  // block.cuh
constexpr int kBlocks = 64;

struct Problem {
    int n, c, h, w, stride;
    unsigned seed;
};

// As float and double hold them.
template <class Values>
void fill(Values& values, std::mt19937& engine, double scale) {
    std::normal_distribution<double> normal;
    for (double& value : values) value = double(float(scale * normal(engine)));
}

struct Host {
    plain::Edge edge;
    plain::Array x, grad, x_grad, y;

    explicit Host(const Problem& p)
        : edge(p.c, p.stride),
          x(p.n, p.c, p.h, p.w),
          grad(p.n, p.c, plain::halved(p.h, p.stride), plain::halved(p.w, p.stride)),
          x_grad(x.like()),
          y(grad.like()) {
        std::mt19937 engine(p.seed);
        fill(x.values, engine, 1);
        fill(grad.values, engine, 1);
        fill(edge.alpha, engine, 1);
        for (plain::Weight& weight : edge.weights)
            fill(weight.values, engine, std::sqrt(double(p.c) / double(weight.values.size())));
        y = edge.run(x, grad, x_grad);
    }
};

Graph graph_of(const Problem& p) {
    using Pool = CandidateDescription::Pool;
    using Kind = StageDescription::Kind;
    const auto convolution = [](int kernel, int dilation, int stages) {
        return CandidateDescription{Pool::none, false,
                                    std::vector<StageDescription>(stages, {Kind::depthwise, kernel, dilation})};
    };
    const CandidateDescription skip = p.stride == 1 ? CandidateDescription{Pool::none, true, {}}
                                                    : CandidateDescription{Pool::none, false, {{Kind::reduce, 1, 1}}};
    const std::vector<CandidateDescription> candidates{
        {Pool::none, false, {}}, {Pool::max, false, {}}, {Pool::avg, false, {}}, skip,
        convolution(3, 1, 2),    convolution(5, 1, 2),   convolution(3, 2, 1),   convolution(5, 2, 1)};
    const std::size_t norms = p.stride == 1 ? 8 : 9;
    return Graph({p.c, p.c}, 1, {{0, 1, p.stride, true, candidates}}, {1},
                 std::vector<NormDescription>(norms, {1e-5, false, true}));
}

std::vector<float> floats(const std::vector<double>& values) {
    return {values.begin(), values.end()};
}

std::vector<float> unwritten(gpu::i64 size) {
    return std::vector<float>(std::size_t(size), NAN);
}

// Says how a result compares; whether it agrees.
bool agrees(const std::string& name, const float* actual, const std::vector<double>& expected) {
    double worst = 0, largest = 1e-30;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const double error = std::fabs(double(actual[i]) - expected[i]);
        if (!(error <= worst)) worst = std::isnan(error) ? INFINITY : error;
        largest = std::fmax(largest, std::fabs(expected[i]));
    }
    const bool good = worst <= kBound * largest;
    std::printf("  %-12s %9.2e of %9.2e  %s\n", name.c_str(), worst, largest, good ? "agrees" : "DIFFERS");
    return good;
}

bool check(const Problem& p, const Host& host, Memory memory) {
    const Graph graph = graph_of(p);
    const gpu::Tiling tiling{kElements, kLeast, kMost, kBlocks};
    const std::vector<Size> sizes{{p.h, p.w}};
    const gpu::Plan forward = gpu::plan_forward(graph, p.n, sizes, memory, tiling);
    const gpu::Plan backward = gpu::plan_backward(graph, p.n, sizes, memory, tiling, {true, true, true});

    std::vector<float> params;
    for (const plain::Weight& weight : host.edge.weights)
        params.insert(params.end(), weight.values.begin(), weight.values.end());
    params.insert(params.end(), host.edge.alpha.begin(), host.edge.alpha.end());

    const device::Array<float> x(floats(host.x.values)), given(floats(host.grad.values)), weights(params);
    const device::Array<float> y(unwritten(gpu::i64(host.y.values.size()))), saved(unwritten(forward.saved));
    const device::Array<float> x_grad(unwritten(backward.grad_inputs)), grads(unwritten(backward.grads));
    const device::Array<float> statistics(unwritten(2 * graph.statistics));
    for (const gpu::Plan* plan : {&forward, &backward}) {
        const device::Array<gpu::i64> table(plan->table);
        const device::Array<float> scratch(unwritten(plan->scratch)), sums(unwritten(plan->floats));
        const device::Tensors tensors{{x.data(), x.data(), x.data(), x.data(), y.data(), saved.data(), scratch.data(),
                                       given.data(), x_grad.data()},
                                      weights.data(),
                                      sums.data(),
                                      statistics.data(),
                                      grads.data(),
                                      table.data()};
        for (const gpu::Launch& launch : plan->launches) device::launch(tensors, launch);
        scratch.values();  // waits, before it is given back
    }

    std::printf("memory \"%s\", %zu + %zu launches; largest error, largest value\n",
                memory == Memory::fast ? "fast" : "lean", forward.launches.size(), backward.launches.size());
    bool good = agrees("y", y.values().data(), host.y.values);
    good &= agrees("grad x", x_grad.values().data(), host.x_grad.values);
    const std::vector<float> all = grads.values();
    good &= agrees("grad alpha", all.data() + all.size() - 8, host.edge.alpha_grad);
    std::size_t place = 0;
    for (std::size_t i = 0; i < host.edge.weights.size(); ++i) {
        good &= agrees("grad weight " + std::to_string(i), all.data() + place, host.edge.weights[i].grad);
        place += host.edge.weights[i].grad.size();
    }
    return good;
}

}  // namespace

int main(int count, char** arguments) {
    int numbers[6] = {2, 16, 12, 11, 1, 0};
    for (int i = 0; i + 1 < count && i < 6; ++i) numbers[i] = std::atoi(arguments[i + 1]);
    Problem p{numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], unsigned(numbers[5])};
    const bool possible = p.n > 0 && p.c > 0 && p.c <= kElements / kLeast && p.h > 0 && p.w > 0 &&
                          (p.stride == 1 || (p.stride == 2 && p.c % 2 == 0)) &&
                          p.n * plain::halved(p.h, p.stride) * plain::halved(p.w, p.stride) > 1;
    if (!possible) {
        std::fprintf(stderr,
                     "usage: %s [N C H W stride seed]: C at most %d, even where the stride is 2; stride 1 or 2; more "
                     "than one pixel comes out\n",
                     arguments[0], kElements / kLeast);
        return 2;
    }
    const std::string missing = device::missing();
    if (!missing.empty()) {
        std::fprintf(stderr, "cannot check: %s\n", missing.c_str());
        return 2;
    }
    Host host(p);
    for (int attempt = 0; host.edge.margin < kMargin && attempt < 20; ++attempt) {
        ++p.seed;
        host = Host(p);
    }
    if (host.edge.margin < kMargin) {
        std::fprintf(stderr, "cannot check: with so many values some always lie too close to a ReLU's step\n");
        return 2;
    }
    std::printf("%s\n%d x %d x %d x %d, stride %d, seed %u\n", device::name().c_str(), p.n, p.c, p.h, p.w, p.stride,
                p.seed);
    const bool fast = check(p, host, Memory::fast), lean = check(p, host, Memory::lean);
    std::printf("%s\n", fast && lean ? "all agree" : "NOT all agree");
    return fast && lean ? 0 : 1;
}
