// The engine's tests without Python and torch, for sanitizers and for processors that no wheel of torch runs on:
// gradients against finite differences, one memory mode against another, one number of threads against another, calls
// at once, and calls after one that failed. Exits with 1 if a check failed, with 77 if FASTNAS_VECTOR_WIDTH asks for
// what this processor lacks.
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "problem.h"

namespace fastnas::test {

namespace {

int passed = 0, failed = 0;

// `error` may be at most `allowed`.
void check(const std::string& name, const std::string& what, double error, double allowed) {
    const bool good = error <= allowed;
    ++(good ? passed : failed);
    std::printf("%s  %s: %s  %.1e\n", good ? "ok  " : "FAIL", name.c_str(), what.c_str(), error);
}

template <class T>
const char* type() {
    return sizeof(T) == 4 ? "float" : "double";
}

double loss(const Case& c, const Problem<double>& problem) {
    const Run run{Memory::none};
    const std::vector<double> out = Runner<double>(c, problem, run).forward();
    double sum = 0;
    for (std::size_t i = 0; i < out.size(); ++i) sum += out[i] * problem.grad[i];
    return sum;
}

// How far the derivative in a random direction of one leaf is from that of its gradient.
double directional_error(const Case& c, Problem<double> problem, std::size_t leaf, const std::vector<double>& grad,
                         Random& random) {
    constexpr double step = 1e-6;
    const std::vector<double> direction = random.normal<double>(grad.size());
    std::vector<double>& values = problem.leaves[leaf].values;
    const std::vector<double> at = values;
    double expected = 0, scale = 0, sides[2];
    for (std::size_t i = 0; i < grad.size(); ++i) {
        expected += grad[i] * direction[i];
        scale += grad[i] * grad[i];
    }
    for (int side : {0, 1}) {
        for (std::size_t i = 0; i < at.size(); ++i) values[i] = at[i] + (side ? step : -step) * direction[i];
        sides[side] = loss(c, problem);
    }
    return std::abs((sides[1] - sides[0]) / (2 * step) - expected) / (std::sqrt(scale) + 0.1);
}

// A direction in which some ReLU or maximum changes sides within the step says nothing, so each leaf has five tries;
// a wrong gradient fails in all of them.
void check_gradients(const Case& c, const Problem<double>& problem, const Tensors<double>& result) {
    const std::pair<Kind, const char*> kinds[] = {{Kind::input, "inputs"},
                                                  {Kind::alpha, "alpha"},
                                                  {Kind::depthwise, "depthwise weights"},
                                                  {Kind::pointwise, "pointwise weights"},
                                                  {Kind::norm, "gamma and beta"}};
    Random random(1);
    for (const auto& [kind, name] : kinds) {
        double worst = 0;
        bool any = false;
        for (std::size_t leaf = 0; leaf < problem.leaves.size(); ++leaf) {
            if (problem.leaves[leaf].kind != kind) continue;
            any = true;
            double error = 1;
            for (int tries = 0; tries < 5 && !(error <= 1e-5); ++tries)
                error = std::min(error, directional_error(c, problem, leaf, result[leaf + 2].values, random));
            worst = std::max(worst, error);
        }
        if (any) check(c.name, std::string("gradient of ") + name + " against finite differences", worst, 1e-5);
    }
}

// A thread adds up the weights' gradients of its own images, so those depend on how many threads there are; nothing
// else may.
bool same_for_all_threads(Kind kind) {
    return kind != Kind::depthwise && kind != Kind::pointwise;
}

// Where threads share an image, its moments are added up in another order.
template <class T>
void check_threads(const Case& c, const Problem<T>& problem, const Tensors<T>& one) {
    const double rounding = sizeof(T) == 4 ? 2e-5 : 1e-12;
    for (Memory memory : {Memory::fast, Memory::lean})
        for (int threads : {2, 3, 4}) {
            const Run run{memory, threads};
            const Tensors<T> result = compute(c, problem, run);
            const int slabs = Runner<T>(c, problem, run).slabs();
            const std::string name = std::string(type<T>()) + (memory == Memory::lean ? ", lean" : "") + ", " +
                                     std::to_string(threads) + " threads, slabs: " + std::to_string(slabs);
            if (memory == Memory::fast && slabs == 1)
                check(c.name, name + ", give the bits of one", difference(result, one, same_for_all_threads), 0);
            check(c.name, name + ", give the result of one", difference(result, one), rounding);
            check(c.name, name + ", give the same bits again", difference(compute(c, problem, run), result), 0);
        }
    Runner<T> inference(c, problem, {Memory::none, 2});
    check(c.name, std::string(type<T>()) + ", 2 threads give the same output with nothing saved",
          difference(inference.forward(), one[0].values), rounding);
}

template <class T>
void check_modes(const Case& c, const Problem<T>& problem, const Tensors<T>& fast) {
    const std::string name = type<T>();
    const double rounding = sizeof(T) == 4 ? 1e-5 : 1e-12;
    check(c.name, name + ", lean gives what fast gives", difference(compute(c, problem, {Memory::lean}), fast),
          rounding);
    Runner<T> inference(c, problem, {Memory::none});
    // Without batch statistics it adds up in another order.
    check(c.name, name + ", nothing saved gives the same output", difference(inference.forward(), fast[0].values),
          rounding);
    for (int wanted : {1, 2, 4}) {
        const Run run{Memory::fast, 1, (wanted & 1) != 0, (wanted & 2) != 0, (wanted & 4) != 0};
        const char* only = wanted == 1 ? "inputs" : wanted == 2 ? "alpha" : "parameters";
        check(c.name, name + ", gradients of " + only + " alone are the same",
              difference(compute(c, problem, run), fast), 0);
    }
}

template <class T>
Tensors<T> check_case(const Case& c) {
    const Problem<T> problem = fill<T>(c);
    Workspace::release_unused();
    const Tensors<T> result = compute(c, problem, Run());
    check(c.name, std::string(type<T>()) + ", used memory gives the bits of fresh",
          difference(compute(c, problem, Run()), result), 0);
    check_modes(c, problem, result);
    check_threads(c, problem, result);
    return result;
}

void check_precision(const Case& c, const Tensors<float>& single, const Tensors<double>& exact) {
    check(c.name, "float's output is near double's", difference(single[0].values, exact[0].values), 1e-4);
    check(c.name, "float's gradients are near double's", difference(single, exact), 1e-3);
}

// Different cells, each in a thread of its own that has helpers.
void check_at_once(const std::vector<Case>& all) {
    const Run run{Memory::fast, 2};
    std::vector<Problem<float>> problems;
    std::vector<Tensors<float>> alone;
    for (const Case& c : all) {
        problems.push_back(fill<float>(c));
        alone.push_back(compute(c, problems.back(), run));
    }
    std::vector<double> errors(all.size());
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < all.size(); ++i)
        threads.emplace_back([&, i] {
            for (int round = 0; round < 5; ++round)
                errors[i] = std::max(errors[i], difference(compute(all[i], problems[i], run), alone[i]));
        });
    for (std::thread& thread : threads) thread.join();
    for (std::size_t i = 0; i < all.size(); ++i) check(all[i].name, "the same bits while others run", errors[i], 0);
}

// Each allocation of a call fails in turn: the call throws, and the next one gives the same bits with as much memory.
void check_after_failed_allocations(const Case& c) {
    const Problem<float> problem = fill<float>(c);
    Workspace::release_unused();
    const Tensors<float> expected = compute(c, problem, Run());
    const std::size_t kept = Workspace::unused_bytes();
    int thrown = 0;
    double error = 0;
    for (bool done = false; !done; ++thrown) {
        Workspace::release_unused();
        Runner<float> runner(c, problem, Run());
        fail_allocation(thrown);
        try {
            runner.forward();
            runner.backward();
            done = true;
        } catch (const std::bad_alloc&) {
        }
        fail_allocation(-1);
        if (!done) error = std::max(error, difference(compute(c, problem, Run()), expected));
    }
    check(c.name, "the same bits after each of " + std::to_string(thrown - 1) + " failed allocations", error, 0);
    Workspace::release_unused();
    compute(c, problem, Run());
    check(c.name, "the same memory after failed allocations",
          std::abs(double(Workspace::unused_bytes()) - double(kept)), 0);
}

template <class Error, class Make>
bool refuses(Make make) {
    try {
        make();
    } catch (const Error&) {
        return true;
    }
    return false;
}

void check_refusals(const Case& c) {
    const Problem<double> problem = fill<double>(c);
    const Tensors<double> expected = compute(c, problem, Run());
    const auto graph = [](int source, int kernel, std::size_t norms) {
        const CandidateDescription candidate{
            CandidateDescription::Pool::none, false, {{StageDescription::Kind::depthwise, kernel, 1}}};
        return Graph({4, 4}, 1, {{source, 1, 1, true, {candidate}}}, {1},
                     std::vector<NormDescription>(norms, {1e-5, false, true}));
    };
    check("graph", "a kernel that does not exist is refused", !refuses<std::invalid_argument>([&] { graph(0, 7, 1); }),
          0);
    check("graph", "too few norms are refused", !refuses<std::invalid_argument>([&] { graph(0, 3, 0); }), 0);
    check("graph", "a state that does not exist is refused", !refuses<std::out_of_range>([&] { graph(5, 3, 1); }), 0);
    check(c.name, "the same bits after refusals", difference(compute(c, problem, Run()), expected), 0);
}

int run() {
    try {
        std::printf("vector width: %s, %d floats\n", vector_width(), kernels<float>().lanes);
    } catch (const std::runtime_error& error) {
        std::printf("skipped: %s\n", error.what());
        return 77;
    }
    const std::vector<Case> all = cases();
    for (const Case& c : all) {
        const Tensors<double> exact = check_case<double>(c);
        check_precision(c, check_case<float>(c), exact);
        check_gradients(c, fill<double>(c), exact);
    }
    check_at_once(all);
    check_after_failed_allocations(all[3]);
    check_after_failed_allocations(all[8]);
    check_refusals(all[0]);
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}

}  // namespace

}  // namespace fastnas::test

int main(int count, char** arguments) {
    if (count > 1 && !std::strcmp(arguments[1], "--width")) return std::puts(fastnas::vector_width()) < 0;
    return fastnas::test::run();
}
