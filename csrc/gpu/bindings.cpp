// Launch plans for Python.
#include "bindings.h"

#include <pybind11/stl.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <tuple>

#include "plan.h"

namespace py = pybind11;

namespace fastnas::gpu {

namespace {

using Sizes = std::vector<std::pair<int, int>>;
using Cut = std::tuple<int, int, int, int>;

std::vector<Size> sizes_of(const Graph& graph, const Sizes& given) {
    if (int(given.size()) != graph.inputs)
        throw std::invalid_argument("expected " + std::to_string(graph.inputs) + " inputs, got " +
                                    std::to_string(given.size()));
    std::vector<Size> result;
    for (const auto& [height, width] : given) result.push_back({height, width});
    return result;
}

Tiling tiling_of(const Cut& cut) {
    return {std::get<0>(cut), std::get<1>(cut), std::get<2>(cut), std::get<3>(cut)};
}

// cuLaunchKernel, whose library is not linked: function, grid, block, shared memory, stream, arguments, more of them.
using LaunchKernel = int (*)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**,
                             void**);

// Puts launches on a stream. The result is what cuLaunchKernel last returned: 0 unless it has refused one.
int launch_all(std::uintptr_t launch_kernel, const std::vector<std::uintptr_t>& functions,
               const std::vector<const Launch*>& launches, std::uintptr_t tensors, unsigned threads,
               std::uintptr_t stream) {
    const auto call = reinterpret_cast<LaunchKernel>(launch_kernel);
    for (const Launch* launch : launches) {
        void* arguments[] = {reinterpret_cast<void*>(tensors), const_cast<Launch*>(launch)};  // read before it returns
        const int result =
            call(reinterpret_cast<void*>(functions.at(launch->kernel)), unsigned(launch->grid_x),
                 unsigned(launch->grid_y), 1, threads, 1, 1, 0, reinterpret_cast<void*>(stream), arguments, nullptr);
        if (result != 0) return result;
    }
    return 0;
}

// Where each column of a table's row is; that of a View is its base's.
#define FASTNAS_COLUMN(Row, name) {#name, offsetof(Row, name) / sizeof(i64)}
using Columns = std::map<std::string, std::size_t>;

Columns job_columns() {
#define C(name) FASTNAS_COLUMN(Job, name)
    return {C(kind),          C(kernel),       C(dilation),
            C(stride),        C(start),        C(resample),
            C(in_channels),   C(in_height),    C(in_width),
            C(out_channels),  C(out_height),   C(out_width),
            C(first),         C(input),        C(input_norm),
            C(depthwise),     C(pointwise),    C(output),
            C(moments),       C(norm),         C(eps),
            C(batch),         C(gamma),        C(beta),
            C(alpha),         C(running),      C(running_stride),
            C(statistics),    C(grad),         C(sums),
            C(coefficients),  C(affine_sums),  C(alpha_sum),
            C(grad_gathered), C(weight_sums),  C(before),
            C(members),       C(member_count), C(sums_count),
            C(rectify),       C(next),         {"columns", sizeof(Job) / sizeof(i64)}};
#undef C
}

Columns state_columns() {
#define C(name) FASTNAS_COLUMN(State, name)
    return {C(channels), C(height), C(width), C(value), C(grad), C(given), {"columns", sizeof(State) / sizeof(i64)}};
#undef C
}

Columns reduction_columns() {
#define C(name) FASTNAS_COLUMN(Reduction, name)
    return {
        C(source), C(parts), C(stride), C(size), C(place), C(accumulate), {"columns", sizeof(Reduction) / sizeof(i64)}};
#undef C
}

}  // namespace

void bind(py::module_& m, py::class_<Graph>& cell) {
    m.def(
        "gpu_kernels",
        [] {
            return std::vector<std::string>{"moments",      "norms",      "apply",       "grad_sums",
                                            "coefficients", "stage_back", "source_back", "reduce"};
        },
        "Names of the GPU kernels, in the order of their numbers.");
    m.def(
        "gpu_columns",
        [] {
            return std::map<std::string, Columns>{
                {"Job", job_columns()}, {"State", state_columns()}, {"Reduction", reduction_columns()}};
        },
        "Where each column of a plan's tables is; that of a view is its base's.");

    py::class_<Launch>(m, "GpuLaunch", "One kernel launch: its number, grid and arguments.")
        .def_readonly("kernel", &Launch::kernel)
        .def_readonly("grid_x", &Launch::grid_x)
        .def_readonly("grid_y", &Launch::grid_y)
        .def_readonly("list", &Launch::list)
        .def_readonly("count", &Launch::count)
        .def_readonly("state", &Launch::state)
        .def_readonly("tile", &Launch::tile)
        .def_readonly("images", &Launch::images)
        .def_readonly("channels", &Launch::channels)
        .def_readonly("in_channels", &Launch::in_channels)
        .def_readonly("out_channels", &Launch::out_channels)
        .def_readonly("accumulate", &Launch::accumulate)
        .def_readonly("resample", &Launch::resample);

    m.def("gpu_launch", &launch_all,
          "Calls cuLaunchKernel, whose address is given, for all launches; returns its last result.",
          py::arg("launch_kernel"), py::arg("functions"), py::arg("launches"), py::arg("tensors"), py::arg("threads"),
          py::arg("stream"));

    py::class_<Plan>(m, "GpuPlan", "Launches, their table, and the elements that a call's tensors need.")
        .def_readonly("launches", &Plan::launches)
        .def_property_readonly("table",
                               [](const Plan& plan) {
                                   return py::bytes(reinterpret_cast<const char*>(plan.table.data()),
                                                    plan.table.size() * sizeof(i64));
                               })
        .def_readonly("jobs", &Plan::jobs)
        .def_readonly("saved", &Plan::saved)
        .def_readonly("scratch", &Plan::scratch)
        .def_readonly("floats", &Plan::floats)
        .def_readonly("grad_inputs", &Plan::grad_inputs)
        .def_readonly("grads", &Plan::grads);

    cell.def(
        "plan_forward",
        [](const Graph& graph, int images, const Sizes& inputs, const std::string& memory, const Cut& tiling) {
            return plan_forward(graph, images, sizes_of(graph, inputs), memory_mode(memory), tiling_of(tiling));
        },
        py::arg("images"), py::arg("inputs"), py::arg("memory"), py::arg("tiling"));
    cell.def(
        "plan_backward",
        [](const Graph& graph, int images, const Sizes& inputs, const std::string& memory, const Cut& tiling,
           const std::tuple<bool, bool, bool>& wants) {
            const auto [given, alpha, parameters] = wants;
            return plan_backward(graph, images, sizes_of(graph, inputs), memory_mode(memory), tiling_of(tiling),
                                 {given, alpha, parameters});
        },
        py::arg("images"), py::arg("inputs"), py::arg("memory"), py::arg("tiling"), py::arg("wants"));
}

}  // namespace fastnas::gpu
