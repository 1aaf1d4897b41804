#include "bindings.h"

#include <pybind11/stl.h>

#include <tuple>

#include "kernels.h"
#include "peaks.h"

namespace py = pybind11;

namespace fastnas {

namespace {

std::vector<std::tuple<std::string, double, double>> kernel_work(const KernelCases& cases) {
    std::vector<std::tuple<std::string, double, double>> result;
    for (const KernelCase& one : cases.all()) result.emplace_back(one.name, one.flops, one.bytes);
    return result;
}

}  // namespace

void bind_bench(py::module_& m) {
    const py::call_guard<py::gil_scoped_release> unlocked;
    m.def("peak_flops", &peak_flops, py::arg("threads"), py::arg("seconds"), unlocked,
          "float32 operations a second, multiply-adds counting as two.");
    m.def("peak_cache_bytes", &peak_cache_bytes, py::arg("threads"), py::arg("seconds"), unlocked,
          "Bytes a second to and from the second-level caches.");
    m.def("peak_memory_bytes", &peak_memory_bytes, py::arg("threads"), py::arg("seconds"), unlocked,
          "Bytes a second to and from main memory.");
    py::class_<KernelCases>(m, "KernelCases")
        .def(py::init<int, int, int>(), py::arg("channels"), py::arg("size"), py::arg("stride"))
        .def("work", &kernel_work, "Name, floating-point operations and bytes of every kernel.")
        .def("seconds", &KernelCases::seconds, py::arg("name"), py::arg("budget"), unlocked,
             "Median seconds of a run.");
}

}  // namespace fastnas
