// Names of attributes and of functions, made once.
#pragma once

#include <pybind11/pybind11.h>

#include <initializer_list>

namespace fastnas {

#define FASTNAS_NAMES(use)                                                                                           \
    use(__name__) use(_base) use(_children) use(_dtype) use(_empty) use(_first) use(_given) use(_last) use(_repeats) \
        use(_same) use(compute) use(dtype) use(is_contiguous) use(is_floating_point) use(is_leaf) use(leaves)        \
            use(ndim) use(numel) use(other_function) use(_promoted) use(requires_grad) use(result) use(shape)        \
                use(storage_offset)

struct Names {
#define FASTNAS_NAME(name) PyObject* name = PyUnicode_InternFromString(#name);
    FASTNAS_NAMES(FASTNAS_NAME)
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
