#pragma once

#include <pybind11/pybind11.h>

namespace fastnas {

void bind_swap(pybind11::module_& m);

}  // namespace fastnas
