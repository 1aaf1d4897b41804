// Python types whose instances hold a C++ struct, in far less time than pybind11's: a step makes thousands of them.
// Where a struct lists what it refers to, `references(visit)`, Python's garbage collector sees it, which takes its
// time.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <exception>
#include <new>
#include <type_traits>
#include <vector>

namespace fastnas {

namespace py = pybind11;

template <class Body>
struct Boxed {
    PyObject ob_base;
    Body body;
};

template <class Body>
Body& body(PyObject* self) {
    return reinterpret_cast<Boxed<Body>*>(self)->body;
}

template <class Body>
Body& body(const py::handle& self) {
    return body<Body>(self.ptr());
}

// The object that holds a struct.
template <class Body>
py::object holder(Body* held) {
    char* self = reinterpret_cast<char*>(held) - offsetof(Boxed<Body>, body);
    return py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(self));
}

// The type in Python; its module holds it.
template <class Body>
inline PyTypeObject* boxed_type = nullptr;

template <class Body>
bool is_boxed(const py::handle& x) {
    return PyObject_TypeCheck(x.ptr(), boxed_type<Body>);
}

// Takes a new reference from Python's interface, or throws what that raised.
inline py::object taken(PyObject* result) {
    if (result == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(result);
}

inline bool truth(int result) {
    if (result < 0) throw py::error_already_set();
    return result != 0;
}

inline py::object attribute(const py::handle& of, PyObject* name) {
    return taken(PyObject_GetAttr(of.ptr(), name));
}

template <class... Arguments>
py::object call(const py::handle& of, PyObject* name, const Arguments&... arguments) {
    return taken(PyObject_CallMethodObjArgs(of.ptr(), name, arguments.ptr()..., nullptr));
}

// Runs what may throw, and raises that in Python.
template <class Function>
PyObject* raising(Function&& function) {
    try {
        return py::object(function()).release().ptr();
    } catch (py::error_already_set& error) {
        error.restore();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

template <class Body>
PyObject* box_new(PyTypeObject* type, PyObject*, PyObject*) {
    PyObject* self = type->tp_alloc(type, 0);
    if (self != nullptr) new (&body<Body>(self)) Body();
    return self;
}

template <class Body>
py::object box(PyTypeObject* type, const Body& made) {
    const py::object self = taken(type->tp_alloc(type, 0));
    new (&body<Body>(self)) Body(made);
    return self;
}

template <class Body>
int box_traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    int result = 0;
    body<Body>(self).references([&](py::object& held) {
        if (result == 0 && held) result = visit(held.ptr(), arg);
    });
    return result;
}

template <class Body>
int box_clear(PyObject* self) {
    body<Body>(self).references([](py::object& held) { held = py::object(); });
    return 0;
}

template <class Body>
void box_free(PyObject* self) {
    PyTypeObject* type = Py_TYPE(self);
    if (PyType_IS_GC(type)) PyObject_GC_UnTrack(self);
    body<Body>(self).~Body();
    type->tp_free(self);
    Py_DECREF(type);
}

template <class Body, auto member>
PyObject* box_get(PyObject* self, void*) {
    auto& value = body<Body>(self).*member;
    using Value = std::remove_reference_t<decltype(value)>;
    if constexpr (std::is_same_v<Value, bool>) {
        return PyBool_FromLong(value);
    } else if constexpr (std::is_same_v<Value, long>) {
        return PyLong_FromLong(value);
    } else {
        PyObject* held = value ? value.ptr() : Py_None;
        Py_INCREF(held);
        return held;
    }
}

template <class Body, auto member>
int box_set(PyObject* self, PyObject* given, void*) {
    auto& value = body<Body>(self).*member;
    using Value = std::remove_reference_t<decltype(value)>;
    if (given == nullptr) {
        PyErr_SetString(PyExc_AttributeError, "it cannot be deleted");
        return -1;
    }
    if constexpr (std::is_same_v<Value, bool>) {
        const int truth = PyObject_IsTrue(given);
        value = truth > 0;
        return truth < 0 ? -1 : 0;
    } else if constexpr (std::is_same_v<Value, long>) {
        value = PyLong_AsLong(given);
        return PyErr_Occurred() ? -1 : 0;
    } else {
        value = py::reinterpret_borrow<Value>(given);
        return 0;
    }
}

// An attribute of Python's that is a member of the struct.
template <class Body, auto member>
PyGetSetDef read_only(const char* name) {
    return {name, &box_get<Body, member>, nullptr, nullptr, nullptr};
}

template <class Body, auto member>
PyGetSetDef writable(const char* name) {
    return {name, &box_get<Body, member>, &box_set<Body, member>, nullptr, nullptr};
}

// Adds a type to a module. `name` is the whole one; `more` ends with a slot of zeros. Where it is `made_in_python`, the
// garbage collector sees its objects; others come from `box`.
template <class Body, bool made_in_python>
void add_type(py::module_& m, const char* name, const char* doc, const std::vector<PyType_Slot>& more) {
    std::vector<PyType_Slot> slots{{Py_tp_doc, const_cast<char*>(doc)},
                                   {Py_tp_dealloc, reinterpret_cast<void*>(&box_free<Body>)}};
    if constexpr (made_in_python) {
        slots.push_back({Py_tp_new, reinterpret_cast<void*>(&box_new<Body>)});
        slots.push_back({Py_tp_traverse, reinterpret_cast<void*>(&box_traverse<Body>)});
        slots.push_back({Py_tp_clear, reinterpret_cast<void*>(&box_clear<Body>)});
    }
    slots.insert(slots.end(), more.begin(), more.end());
    const unsigned flags = made_in_python ? Py_TPFLAGS_HAVE_GC : Py_TPFLAGS_DISALLOW_INSTANTIATION;
    PyType_Spec spec{name, sizeof(Boxed<Body>), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | flags, slots.data()};
    const py::object type = taken(PyType_FromSpec(&spec));
    boxed_type<Body> = reinterpret_cast<PyTypeObject*>(type.ptr());
    m.attr(type.attr("__name__")) = type;
}

}  // namespace fastnas
