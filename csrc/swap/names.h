// Names of attributes and functions in Python, made once.
#pragma once

#include <pybind11/pybind11.h>

#include <initializer_list>

namespace fastnas {

struct Names {
#define FASTNAS_NAME(name) PyObject* name = PyUnicode_InternFromString(#name)
    // Of tensors.
    FASTNAS_NAME(_base);
    FASTNAS_NAME(dtype);
    FASTNAS_NAME(is_contiguous);
    FASTNAS_NAME(is_floating_point);
    FASTNAS_NAME(is_leaf);
    FASTNAS_NAME(ndim);
    FASTNAS_NAME(numel);
    FASTNAS_NAME(requires_grad);
    FASTNAS_NAME(shape);
    FASTNAS_NAME(storage_offset);
    // Of candidates' recipes (recipes.py).
    FASTNAS_NAME(_attributes);
    FASTNAS_NAME(_children);
    FASTNAS_NAME(_empty);
    FASTNAS_NAME(_last);
    FASTNAS_NAME(leaves);
    FASTNAS_NAME(result);
    // Of promises (promise.py).
    FASTNAS_NAME(compute);
    FASTNAS_NAME(other_function);
    // Of a tape in Python (read.py, lazy.py).
    FASTNAS_NAME(_dtype);
    FASTNAS_NAME(_first);
    FASTNAS_NAME(_given);
    FASTNAS_NAME(_promoted);
    FASTNAS_NAME(_repeats);
    FASTNAS_NAME(_same);
    // Of functions and modules.
    FASTNAS_NAME(__dict__);
    FASTNAS_NAME(__name__);
#undef FASTNAS_NAME

    PyObject* products = set_of({"mul", "multiply", "__mul__", "__rmul__"});
    PyObject* sums = set_of({"add", "__add__", "__radd__"});

    static PyObject* set_of(std::initializer_list<const char*> names) {
        PyObject* set = PyFrozenSet_New(nullptr);
        for (const char* name : names) PySet_Add(set, PyUnicode_InternFromString(name));
        return set;
    }
};

inline const Names& names() {
    static const Names made;
    return made;
}

}  // namespace fastnas
