// fastnas._C: takes pointers, sizes and strides, and knows nothing of torch.
#include "bench/bindings.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "cpu/arena.h"
#include "cpu/cell.h"
#include "dlpack.h"
#include "gpu/bindings.h"
#include "swap/bindings.h"

namespace py = pybind11;

namespace fastnas {
namespace {

using Address = std::uintptr_t;
using View = std::tuple<Address, std::array<std::ptrdiff_t, 4>, std::array<std::ptrdiff_t, 4>>;

template <class T>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

template <class T>
Image<T> image(const View& view) {
    Image<T> result{pointer<T>(std::get<0>(view)), {}, {}};
    std::copy_n(std::get<1>(view).begin(), 4, result.shape);
    std::copy_n(std::get<2>(view).begin(), 4, result.strides);
    return result;
}

template <class T>
std::vector<Image<T>> images(const std::vector<View>& views) {
    std::vector<Image<T>> result;
    for (const View& view : views) result.push_back(image<T>(view));
    return result;
}

template <class T, class Pointer = T*>
std::vector<Pointer> pointers(const std::vector<Address>& addresses) {
    std::vector<Pointer> result;
    for (Address address : addresses) result.push_back(pointer<T>(address));
    return result;
}

void expect(const char* what, std::size_t expected, std::size_t actual) {
    if (expected != actual)
        throw std::invalid_argument("expected " + std::to_string(expected) + " " + what + ", got " +
                                    std::to_string(actual));
}

struct Arguments {
    std::vector<View> inputs;
    Address alpha;
    std::vector<Address> parameters, running;
    View out;
    Address saved;
    std::size_t saved_size;
    Address statistics;
    std::string memory;
    int threads;

    template <class T>
    Call<T> call(const Graph& graph) const {
        expect("inputs", graph.inputs, inputs.size());
        expect("parameters", graph.parameters, parameters.size());
        expect("running statistics", graph.running, running.size());
        Call<T> result{images<T>(inputs),
                       pointer<T>(alpha),
                       pointers<T, const T*>(parameters),
                       pointers<T, const T*>(running),
                       image<T>(out),
                       pointer<T>(saved),
                       pointer<T>(statistics),
                       memory_mode(memory),
                       std::max(threads, 1)};
        expect("saved elements", Cell<T>(graph, result).saved_size(), saved_size);
        return result;
    }
};

template <class T>
void run_backward(const Graph& graph, const Arguments& arguments, const View& grad, const std::vector<View>& inputs,
                  Address alpha, const std::vector<Address>& parameters) {
    const Gradients<T> gradients{image<T>(grad), images<T>(inputs), pointer<T>(alpha), pointers<T>(parameters)};
    if (!inputs.empty()) expect("input gradients", graph.inputs, inputs.size());
    if (!parameters.empty()) expect("parameter gradients", graph.parameters, parameters.size());
    backward(graph, arguments.call<T>(graph), gradients);
}

// momentum < 0: the cumulative average. The running variance is unbiased.
template <class T>
void update_running(const std::vector<Address>& means, const std::vector<Address>& variances,
                    const std::vector<Address>& counters, const std::vector<int>& channels, Address statistics,
                    const std::vector<double>& momentum, const std::vector<double>& counts) {
    std::ptrdiff_t total = 0, at = 0;
    for (int c : channels) total += c;
    const T* batch = pointer<T>(statistics);
    for (std::size_t i = 0; i < channels.size(); ++i) {
        const auto seen = ++*pointer<std::int64_t>(counters[i]);
        const double factor = momentum[i] < 0 ? 1.0 / double(seen) : momentum[i];
        T* mean = pointer<T>(means[i]);
        T* variance = pointer<T>(variances[i]);
        for (int c = 0; c < channels[i]; ++c, ++at) {
            mean[c] = T((1 - factor) * mean[c] + factor * batch[at]);
            variance[c] = T((1 - factor) * variance[c] + factor * batch[total + at] * counts[i] / (counts[i] - 1));
        }
    }
}

Graph make_graph(
    std::vector<int> channels, int inputs,
    const std::vector<std::tuple<
        int, int, int, bool, std::vector<std::tuple<std::string, bool, std::vector<std::tuple<std::string, int, int>>>>,
        int, int>>& edges,
    std::vector<int> outputs, const std::vector<std::tuple<double, bool, bool>>& norms) {
    std::vector<EdgeDescription> described;
    for (const auto& [source, target, stride, searched, candidates, shares, like] : edges) {
        EdgeDescription edge{source, target, stride, searched, {}, shares, like};
        for (const auto& [pool, identity, stages] : candidates) {
            CandidateDescription candidate{pool == "max"   ? CandidateDescription::Pool::max
                                           : pool == "avg" ? CandidateDescription::Pool::avg
                                                           : CandidateDescription::Pool::none,
                                           identity,
                                           {}};
            for (const auto& [kind, kernel, dilation] : stages)
                candidate.stages.push_back({kind == "depthwise"   ? StageDescription::Kind::depthwise
                                            : kind == "pointwise" ? StageDescription::Kind::pointwise
                                            : kind == "reduce"    ? StageDescription::Kind::reduce
                                                                  : StageDescription::Kind::resize,
                                            kernel, dilation});
            edge.candidates.push_back(candidate);
        }
        described.push_back(edge);
    }
    std::vector<NormDescription> norm_descriptions;
    for (const auto& [eps, affine, batch] : norms) norm_descriptions.push_back({eps, affine, batch});
    return Graph(std::move(channels), inputs, described, std::move(outputs), norm_descriptions);
}

}  // namespace
}  // namespace fastnas

PYBIND11_MODULE(_C, m) {
    using namespace fastnas;
    m.doc() = "The compiled part of fastnas.";
    m.def("vector_width", &vector_width, "The vector width in use: avx512, avx2 or baseline.");
    m.def("block", &block, py::arg("element_size"), py::arg("channels"), "Channels in a block of the internal layout.");
    m.def("pooled_tensor", &pooled_tensor, py::arg("count"), py::arg("element_size"),
          "A flat tensor from the pool, as a DLPack capsule.");
    m.def("release_workspaces", &Workspace::release_unused, "Give the pool's unused memory back to the system.");
    m.def("workspace_bytes", &Workspace::unused_bytes, "Memory that the pool keeps for the next call.");

    py::class_<Rehearsal>(m, "Rehearsal", "Finds the memory that calls take, without their work; a context manager.")
        .def(py::init())
        .def("__enter__", [](Rehearsal& self) { self.enter(); })
        .def("__exit__", [](Rehearsal&, const py::args&) { Rehearsal::leave(); })
        .def("repeat", &Rehearsal::repeat,
             "Take, and give back, what the calls inside another took; returns the most that the pool held meanwhile.")
        .def("held", &Rehearsal::held, "Bytes that the pool holds now, in use and unused.")
        .def("most", &Rehearsal::most, "The most that it ever held.");

    py::class_<Arguments>(m, "Arguments")
        .def(py::init([](std::vector<View> inputs, Address alpha, std::vector<Address> parameters,
                         std::vector<Address> running, View out, Address saved, std::size_t saved_size,
                         Address statistics, std::string memory, int threads) {
            return Arguments{std::move(inputs),
                             alpha,
                             std::move(parameters),
                             std::move(running),
                             out,
                             saved,
                             saved_size,
                             statistics,
                             std::move(memory),
                             threads};
        }));

    py::class_<Graph> cell(m, "Cell");
    cell.def(py::init(&make_graph), py::arg("channels"), py::arg("inputs"), py::arg("edges"), py::arg("outputs"),
             py::arg("norms"))
        .def(
            "forward",
            [](const Graph& graph, const Arguments& arguments, std::size_t element_size) {
                const py::gil_scoped_release release;
                if (element_size == 4)
                    forward(graph, arguments.call<float>(graph));
                else
                    forward(graph, arguments.call<double>(graph));
            },
            "Compute a cell.")
        .def(
            "backward",
            [](const Graph& graph, const Arguments& arguments, const View& grad, const std::vector<View>& inputs,
               Address alpha, const std::vector<Address>& parameters, std::size_t element_size) {
                const py::gil_scoped_release release;
                if (element_size == 4)
                    run_backward<float>(graph, arguments, grad, inputs, alpha, parameters);
                else
                    run_backward<double>(graph, arguments, grad, inputs, alpha, parameters);
            },
            "Compute a cell's gradients.");

    m.def(
        "update_running_stats",
        [](const std::vector<Address>& means, const std::vector<Address>& variances,
           const std::vector<Address>& counters, const std::vector<int>& channels, Address statistics,
           const std::vector<double>& momentum, const std::vector<double>& counts, std::size_t element_size) {
            if (element_size == 4)
                update_running<float>(means, variances, counters, channels, statistics, momentum, counts);
            else
                update_running<double>(means, variances, counters, channels, statistics, momentum, counts);
        },
        "Blend a batch's statistics into running ones.");
    bind_bench(m);
    bind_swap(m);
    gpu::bind(m, cell);
}
