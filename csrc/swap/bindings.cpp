// The types `Tape`, `Value` and `Call` of fastnas._C: what fastnas/swap/promise.py and lazy.py build on.
#include "bindings.h"

#include "names.h"
#include "tape.h"

namespace fastnas {

namespace {

py::object borrowed(PyObject* object) {
    return py::reinterpret_borrow<py::object>(object);
}

// A promise's tensor; anything else as it is.
py::object computed(const py::object& x) {
    return is_value(x) ? call(x, names().compute) : x;
}

// One of them is a value.
py::object times(const py::object& a, const py::object& b) {
    const py::object &promise = is_value(a) ? a : b, &weight = is_value(a) ? b : a;
    const Value& value = body<Value>(promise);
    const Tape& tape = body<Tape>(value.tape);
    if (!value.computed() && tape.sums() && tape.weighs(weight)) return Tape::scaled(value.tape, promise, weight);
    return taken(PyNumber_Multiply(computed(a).ptr(), computed(b).ptr()));
}

py::object plus(const py::object& a, const py::object& b) {
    const py::object &promise = is_value(a) ? a : b, &other = is_value(a) ? b : a;
    const bool number = PyFloat_Check(other.ptr()) || PyLong_Check(other.ptr());
    if (number && !truth(PyObject_IsTrue(other.ptr()))) return promise;  // where `sum` begins
    const py::object tape = body<Value>(promise).tape;
    if (body<Tape>(tape).sums()) {
        const py::object total = Tape::sum(tape, a, b);
        if (!total.is_none()) return total;
    }
    return taken(PyNumber_Add(computed(a).ptr(), computed(b).ptr()));
}

PyObject* value_multiply(PyObject* a, PyObject* b) {
    return raising([&] { return times(borrowed(a), borrowed(b)); });
}

PyObject* value_add(PyObject* a, PyObject* b) {
    return raising([&] { return plus(borrowed(a), borrowed(b)); });
}

// What PyTorch calls where one of its functions is given a value: (function, types, arguments, named arguments).
PyObject* value_function(PyObject* cls, PyObject* const* given, Py_ssize_t count) {
    return raising([&]() -> py::object {
        const py::tuple arguments = count > 2 ? borrowed(given[2]) : py::tuple();
        const py::object named = count > 3 ? borrowed(given[3]) : py::none();
        const bool two = arguments.size() == 2 && (is_value(arguments[0]) || is_value(arguments[1]));
        if (two && !truth(PyObject_IsTrue(named.ptr()))) {
            const py::object name = py::getattr(given[0], names().__name__, Py_None);
            if (truth(PySet_Contains(names().products, name.ptr()))) return times(arguments[0], arguments[1]);
            if (truth(PySet_Contains(names().sums, name.ptr()))) return plus(arguments[0], arguments[1]);
        }
        return call(cls, names().other_function, borrowed(given[0]), arguments, named);
    });
}

PyObject* call_value(PyObject* self, void*) {
    return raising([&] { return body<Call>(self).value ? holder(body<Call>(self).value) : py::none(); });
}

PyObject* value_parts(PyObject* self, void*) {
    return raising([&]() -> py::object {
        const Value& value = body<Value>(self);
        const py::tuple first = py::make_tuple(value.first.what, value.first.whole);
        if (!value.second.what) return py::make_tuple(first);
        return py::make_tuple(first, py::make_tuple(value.second.what, value.second.whole));
    });
}

PyObject* value_state(PyObject* self, void*) {
    const Value& value = body<Value>(self);
    return PyBool_FromLong(body<Tape>(value.tape).is_state(value.number));
}

int tape_init(PyObject* self, PyObject* arguments, PyObject*) {
    PyObject *value_type, *tensor_type, *modes, *alone, *kinds;
    if (!PyArg_ParseTuple(arguments, "OOO!O!O!", &value_type, &tensor_type, &PyTuple_Type, &modes, &PySet_Type, &alone,
                          &PyDict_Type, &kinds))
        return -1;
    const py::object begun = py::reinterpret_steal<py::object>(raising([&]() -> py::object {
        Tape& tape = body<Tape>(self);
        tape.value_type = borrowed(value_type), tape.tensor_type = borrowed(tensor_type);
        tape.modes = borrowed(modes), tape.alone = borrowed(alone), tape.kinds = borrowed(kinds);
        tape.mode = tape.current_mode();
        tape.constants[py::float_(1.0)] = py::int_(0);
        return py::none();
    }));
    return begun ? 0 : -1;
}

using Arguments = PyObject* const*;

// A method of a tape, of so many arguments.
template <auto function, std::size_t... i>
PyObject* invoke(PyObject* self, Arguments given, Py_ssize_t count, std::index_sequence<i...>) {
    if (count != sizeof...(i)) {
        PyErr_Format(PyExc_TypeError, "expected %zd arguments, got %zd", Py_ssize_t(sizeof...(i)), count);
        return nullptr;
    }
    if (!body<Tape>(self).modes) {
        PyErr_SetString(PyExc_RuntimeError, "the tape has not been initialised");
        return nullptr;
    }
    return raising([&] { return function(borrowed(self), borrowed(given[i])...); });
}

template <auto function, std::size_t count>
PyMethodDef method(const char* name, const char* doc) {
    const _PyCFunctionFast called = [](PyObject* self, Arguments given, Py_ssize_t n) {
        return invoke<function>(self, given, n, std::make_index_sequence<count>());
    };
    return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(called)), METH_FASTCALL, doc};
}

using Object = const py::object&;

py::object number(Object self, Object x) {
    return py::int_(Tape::number(self, x));
}

py::object place(Object self, Object weight) {
    const Place found = Tape::place(self, weight);
    return py::make_tuple(found.number, found.at);
}

py::object pending(Object self, Object recipe) {
    const py::object found = Tape::pending_calls(self, recipe);
    return found ? found : py::object(py::tuple());
}

py::object add_states(Object self, Object numbers) {
    for (const py::handle number : numbers) body<Tape>(self).add_state(number.cast<long>());
    return py::none();
}

py::object open(Object self) {
    return py::bool_(body<Tape>(self).open());
}

py::object sums(Object self) {
    return py::bool_(body<Tape>(self).sums());
}

py::object weighs(Object self, Object x) {
    return py::bool_(body<Tape>(self).weighs(x));
}

py::object history(Object self) {
    return body<Tape>(self).history();
}

py::object begin(Object self, Object after) {
    body<Tape>(self).begin(after);
    return py::none();
}

py::object clear(Object self) {
    body<Tape>(self).clear();
    return py::none();
}

template <class Function>
void* slot(Function* function) {
    return reinterpret_cast<void*>(function);
}

}  // namespace

void bind_swap(py::module_& m) {
    m.attr("PRODUCTS") = py::handle(names().products);
    m.attr("SUMS") = py::handle(names().sums);
    m.attr("CONSTANT") = Place::constant;

    static PyGetSetDef call_attributes[] = {
        read_only<Call, &Call::recipe>("recipe"), read_only<Call, &Call::source>("source"),
        read_only<Call, &Call::shape>("shape"),   {"value", call_value, nullptr, nullptr, nullptr},
        read_only<Call, &Call::number>("number"), read_only<Call, &Call::repeats>("repeats"),
        writable<Call, &Call::done>("done"),      {}};
    add_type<Call, false>(m, "fastnas._C.Call", "A candidate's call that has been promised.",
                          {{Py_tp_getset, call_attributes}, {}});

    static PyGetSetDef value_attributes[] = {read_only<Value, &Value::tape>("run"),
                                             read_only<Value, &Value::shape>("shape"),
                                             read_only<Value, &Value::dtype>("dtype"),
                                             read_only<Value, &Value::weight>("weight"),
                                             read_only<Value, &Value::number>("number"),
                                             writable<Value, &Value::tensor>("tensor"),
                                             writable<Value, &Value::terms>("multiplied_out"),
                                             {"parts", value_parts, nullptr, nullptr, nullptr},
                                             {"state", value_state, nullptr, nullptr, nullptr},
                                             {}};
    static PyMethodDef value_methods[] = {
        {"__torch_function__", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&value_function)),
         METH_CLASS | METH_FASTCALL, "Products and sums of two; `other_function` does the rest."},
        {}};
    add_type<Value, false>(m, "fastnas._C.Value", "The promise of a sum of weighted parts.",
                           {{Py_tp_getset, value_attributes},
                            {Py_tp_methods, value_methods},
                            {Py_nb_multiply, slot(&value_multiply)},
                            {Py_nb_add, slot(&value_add)},
                            {}});

    static PyGetSetDef tape_attributes[] = {
        read_only<Tape, &Tape::mode>("mode"),     read_only<Tape, &Tape::calls>("calls"),
        read_only<Tape, &Tape::inputs>("inputs"), read_only<Tape, &Tape::constants>("constants"),
        writable<Tape, &Tape::half>("half"),      {}};
    static PyMethodDef tape_methods[] = {
        method<&open, 0>("open", "Whether promises can be made: all are computed in the modes in which the run began."),
        method<&sums, 0>("sums", "Whether sums and products can be promised: autocast leaves these as they are."),
        method<&weighs, 1>("weighs", "Whether a value can be multiplied by it and remain one."),
        method<&Tape::promise, 2>("promise", "What a candidate would return for an input; None if that is not known."),
        method<&Tape::promised, 1>("promised", "A promise of a call's result."),
        method<&Tape::of, 1>("of", "A value that is a tensor; None if it cannot be one."),
        method<&number, 1>("number", "Of a value, or, negative, of a tensor that a promise reads."),
        method<&place, 1>("place", "Where a weight is, (number of a tensor, of an element)."),
        method<&pending, 1>("pending", "The calls of a candidate."),
        method<&add_states, 1>("add_states",
                               "Note values that are inputs of candidates, or parts of sums as they are."),
        method<&history, 0>("history", "What was done since `begin`, as bytes: equal for what was alike."),
        method<&begin, 1>("begin", "Begin a history after something; after None, it is like no other."),
        method<&clear, 0>("clear", "Forget calls and tensors."),
        {}};
    add_type<Tape, true>(
        m, "fastnas._C.Tape", "One call of a region: what its code does with candidates.",
        {{Py_tp_getset, tape_attributes}, {Py_tp_methods, tape_methods}, {Py_tp_init, slot(&tape_init)}, {}});
}

}  // namespace fastnas
