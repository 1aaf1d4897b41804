#pragma once

#include <pybind11/pybind11.h>

#include "../cpu/graph.h"

namespace fastnas::gpu {

void bind(pybind11::module_& m, pybind11::class_<Graph>& cell);

}  // namespace fastnas::gpu
