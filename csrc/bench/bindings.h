// The benchmarks of the compiled part, as functions of fastnas._C.
#pragma once

#include <pybind11/pybind11.h>

namespace fastnas {

void bind_bench(pybind11::module_& m);

}  // namespace fastnas
