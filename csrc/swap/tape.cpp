#include "tape.h"

#include <utility>

#include "names.h"

namespace fastnas {

namespace {

bool flag(const py::handle& of, PyObject* name) {
    return truth(PyObject_IsTrue(attribute(of, name).ptr()));
}

bool asked(const py::handle& of, PyObject* name) {
    return truth(PyObject_IsTrue(call(of, name).ptr()));
}

long integer_of(const py::object& number) {
    const long result = PyLong_AsLong(number.ptr());
    if (result == -1 && PyErr_Occurred()) throw py::error_already_set();
    return result;
}

// Nothing where the key is not in it.
py::object found(const py::handle& dict, const py::handle& key) {
    PyObject* value = PyDict_GetItemWithError(dict.ptr(), key.ptr());
    if (value == nullptr && PyErr_Occurred()) throw py::error_already_set();
    return py::reinterpret_borrow<py::object>(value);
}

// Whether something was done to a candidate since it was recognised: it has hooks or modules that it did not have, or
// modules inside it have been replaced.
bool changed(const py::object& recipe) {
    const py::object empty = attribute(recipe, names()._empty);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(empty.ptr()); ++i)
        if (PyDict_GET_SIZE(PyList_GET_ITEM(empty.ptr(), i)) > 0) return true;
    const py::object children = attribute(recipe, names()._children);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(children.ptr()); ++i) {
        PyObject* pair = PyList_GET_ITEM(children.ptr(), i);
        PyObject *store = PyTuple_GET_ITEM(pair, 0), *before = PyTuple_GET_ITEM(pair, 1);
        if (PyDict_GET_SIZE(store) != PyList_GET_SIZE(before)) return true;
        Py_ssize_t at = 0;
        PyObject* child = nullptr;
        for (Py_ssize_t n = 0; PyDict_Next(store, &at, nullptr, &child); ++n)
            if (child != PyList_GET_ITEM(before, n)) return true;
    }
    return false;
}

// Whether a value that an attribute had is another now. Tensors, modules and the like are compared by identity.
bool other(const py::handle& now, const py::handle& before) {
    if (now.is(before)) return false;
    const bool plain = PyLong_Check(now.ptr()) || PyFloat_Check(now.ptr()) || PyUnicode_Check(now.ptr()) ||
                       PyTuple_Check(now.ptr()) || PyList_Check(now.ptr()) || PyDict_Check(now.ptr()) ||
                       PyAnySet_Check(now.ptr());
    if (!plain) return true;
    const int equal = PyObject_RichCompareBool(now.ptr(), before.ptr(), Py_EQ);
    if (equal < 0) PyErr_Clear();  // of lists of tensors, which do not compare
    return equal <= 0;
}

// Whether modules of a candidate have other attributes than when it was recognised.
bool behaves_otherwise(const py::object& recipe) {
    const py::object modules = attribute(recipe, names()._attributes);
    for (const py::handle entry : modules) {
        const auto get = [&](Py_ssize_t i) { return py::handle(PyTuple_GET_ITEM(entry.ptr(), i)); };
        const py::object now = attribute(get(0), names().__dict__);
        if (PyDict_GET_SIZE(now.ptr()) != PyLong_AsSsize_t(get(1).ptr())) return true;
        const py::handle keys = get(2), values = get(3);
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(keys.ptr()); ++i) {
            const py::object value = found(now, PyTuple_GET_ITEM(keys.ptr(), i));
            if (!value || other(value, PyTuple_GET_ITEM(values.ptr(), i))) return true;
        }
    }
    return false;
}

// The shape of a candidate's result; None if the operator does not take its input.
py::object result(const py::object& recipe, const py::object& shape) {
    const py::object last = attribute(recipe, names()._last);
    if (shape.equal(py::handle(PyTuple_GET_ITEM(last.ptr(), 0))))
        return py::reinterpret_borrow<py::object>(PyTuple_GET_ITEM(last.ptr(), 1));
    return call(recipe, names().result, shape);
}

// Never the same again, so that a history is not taken for an older one when what is known has been forgotten.
std::int64_t unused_kind() {
    static std::int64_t next = 0;
    return next++;
}

py::object settled(const py::object& x) {
    return is_value(x) && body<Value>(x).computed() ? body<Value>(x).tensor : x;
}

}  // namespace

bool Tape::is_tensor(const py::handle& x) const {
    return PyObject_TypeCheck(x.ptr(), reinterpret_cast<PyTypeObject*>(tensor_type.ptr()));
}

Value::~Value() {
    if (Call* call = promised_call(); call != nullptr && call->value == this) call->value = nullptr;
    // Of a long sum, taken apart from its end, only so much on the stack.
    static int depth = 0;
    static std::vector<py::object>& later = *new std::vector<py::object>;
    if (depth == 100) {
        later.push_back(std::move(first.what));
        later.push_back(std::move(second.what));
        return;
    }
    ++depth;
    first.what = second.what = py::object();
    --depth;
    while (depth == 0 && !later.empty()) {
        const py::object next = std::move(later.back());
        later.pop_back();
    }
}

py::object Tape::current_mode() const {
    py::tuple now(PyTuple_GET_SIZE(modes.ptr()));
    for (std::size_t i = 0; i < now.size(); ++i) now[i] = taken(PyObject_CallNoArgs(PyTuple_GET_ITEM(modes.ptr(), i)));
    return std::move(now);
}

bool Tape::open() const {
    return mode.equal(current_mode());
}

bool Tape::sums() const {
    return taken(PyObject_CallNoArgs(PyTuple_GET_ITEM(modes.ptr(), 0))).ptr() == PyTuple_GET_ITEM(mode.ptr(), 0);
}

bool Tape::weighs(const py::object& x) const {
    if (!is_tensor(x)) return (PyFloat_Check(x.ptr()) || PyLong_Check(x.ptr())) && !PyBool_Check(x.ptr());
    if (!asked(x, names().is_floating_point)) return false;
    const long dims = integer_of(attribute(x, names().ndim));
    return dims == 0 || ((dims == 1 || dims == 4) && integer_of(call(x, names().numel)) == 1);
}

void Tape::add_state(long number) {
    if (number >= long(states_.size())) states_.resize(number + 1);
    states_[number] = true;
}

void Tape::clear() {
    calls.clear();
    inputs.clear();
    pending.clear();
    numbers_.clear();
    elements_.clear();
    given_ = py::object();
}

py::bytes Tape::history() const {
    return {reinterpret_cast<const char*>(history_.data()), history_.size() * sizeof history_[0]};
}

void Tape::begin(const py::object& after) {
    history_.clear();
    note(Event::begun, {after.is_none() ? unused_kind() : kind(after)});
}

void Tape::note(Event event, std::initializer_list<std::int64_t> numbers) {
    history_.push_back(std::int64_t(event));
    history_.insert(history_.end(), numbers);
}

std::int64_t Tape::kind(const py::object& what) const {
    if (const py::object known = found(kinds, what)) return PyLong_AsLongLong(known.ptr());
    const std::int64_t number = unused_kind();
    truth(PyDict_SetItem(kinds.ptr(), what.ptr(), py::int_(number).ptr()));
    return number;
}

py::object Tape::promise(const py::object& self, const py::object& recipe, const py::object& x) {
    Tape& tape = body<Tape>(self);
    const bool here = is_value(x) && body<Value>(x).tape.is(self);
    if (!here && !(tape.is_tensor(x) && asked(x, names().is_floating_point))) return py::none();
    const py::object earlier = pending_calls(self, recipe);
    if (changed(recipe) || (!earlier && behaves_otherwise(recipe))) return py::none();
    const py::object shape = result(recipe, attribute(x, names().shape));
    if (shape.is_none() || !tape.open()) return py::none();
    py::object source = settled(x);
    if (!is_value(source) && !attribute(source, names()._base).is_none()) source = call(self, names()._same, source);
    py::object made;
    if (earlier) {
        const auto last = py::reinterpret_borrow<py::object>(PyList_GET_ITEM(earlier.ptr(), py::len(earlier) - 1));
        if (call(self, names()._repeats, last, source).is(py::handle(Py_True))) {
            made = last;
            ++body<Call>(made).repeats;
        }
    }
    if (!made) {
        source = settled(source);
        made = box<Call>(boxed_type<Call>, {recipe, source, shape, long(tape.calls.size())});
        tape.calls.append(made);
        if (earlier)
            py::reinterpret_borrow<py::list>(earlier).append(made);
        else if (flag(recipe, names().leaves))
            tape.pending[recipe] = py::list(py::make_tuple(made));
    }
    if (is_value(source)) tape.add_state(body<Value>(source).number);
    return promised(self, made);
}

py::object Tape::pending_calls(const py::object& self, const py::object& recipe) {
    return found(body<Tape>(self).pending, recipe);
}

py::object Tape::promised(const py::object& self, const py::object& made) {
    const Call& promised = body<Call>(made);
    const py::object source = promised.source;
    py::object dtype =
        body<Tape>(self).half ? call(self, names()._dtype, promised.recipe, source) : attribute(source, names().dtype);
    const long read = number(self, source);
    body<Tape>(self).note(Event::called, {body<Tape>(self).kind(promised.recipe), read});
    return make(self, {self, promised.shape, dtype, {}, {made}});
}

py::object Tape::scaled(const py::object& self, const py::object& value, const py::object& weight) {
    Tape& tape = body<Tape>(self);
    const Value& before = body<Value>(value);
    py::object dtype = before.dtype;
    if (tape.is_tensor(weight)) {
        const py::object other = attribute(weight, names().dtype);
        // A tensor of one dimension or more takes part in the promotion of dtypes.
        if (!other.is(dtype) && integer_of(attribute(weight, names().ndim)) > 0)
            dtype = call(self, names()._promoted, dtype, other);
    }
    const Place found = place(self, weight);
    tape.note(Event::scaled, {before.number, found.number, found.at});
    return make(self, {self, before.shape, dtype, weight, {value, tape.is_state(before.number)}});
}

py::object Tape::sum(const py::object& self, const py::object& a, const py::object& b) {
    const py::object shape = is_value(a) ? body<Value>(a).shape : body<Value>(b).shape;
    const Part first = part(self, a, shape), second = part(self, b, shape);
    if (!first.what || !second.what) return py::none();
    const py::object mine = attribute(a, names().dtype), other = attribute(b, names().dtype);
    const py::object dtype = mine.is(other) ? mine : call(self, names()._promoted, mine, other);
    body<Tape>(self).note(Event::summed, {first.number, second.number});
    return make(self, {self, shape, dtype, {}, first, second});
}

py::object Tape::of(const py::object& self, const py::object& tensor) {
    const py::object shape = attribute(tensor, names().shape);
    const Part found = part(self, tensor, shape);
    if (!found.what) return py::none();
    body<Tape>(self).note(Event::wrapped, {found.number});
    return make(self, {self, shape, attribute(tensor, names().dtype), {}, found});
}

py::object Tape::make(const py::object& self, const Value& described) {
    Tape& tape = body<Tape>(self);
    const py::object made = box<Value>(reinterpret_cast<PyTypeObject*>(tape.value_type.ptr()), described);
    Value& value = body<Value>(made);
    value.number = tape.values++;
    if (Call* call = value.promised_call(); call != nullptr && call->value == nullptr) call->value = &value;
    if (PySet_GET_SIZE(tape.alone.ptr()) > 0 && truth(PySet_Contains(tape.alone.ptr(), py::int_(value.number).ptr())))
        call(made, names().compute);  // an earlier call of the region found that it is needed by itself
    return made;
}

Part Tape::part(const py::object& self, const py::object& x, const py::object& shape) {
    const Tape& tape = body<Tape>(self);
    if (is_value(x)) {
        const Value& value = body<Value>(x);
        if (!value.tape.is(self) || !value.shape.equal(shape)) return {};
        return {x, value.computed() || tape.is_state(value.number), number(self, x)};
    }
    const bool fits = tape.is_tensor(x) && attribute(x, names().shape).equal(shape);
    return fits && asked(x, names().is_floating_point) ? Part{x, true, number(self, x)} : Part{};
}

long Tape::number(const py::object& self, const py::object& x) {
    if (is_value(x) && !body<Value>(x).computed()) return body<Value>(x).number;
    return ~number_of_tensor(self, settled(x));
}

long Tape::number_of_tensor(const py::object& self, const py::object& tensor) {
    Tape& tape = body<Tape>(self);
    const auto [found, is_new] = tape.numbers_.emplace(tensor.ptr(), long(tape.numbers_.size()));
    const long number = found->second;
    if (is_new) {
        tape.inputs.append(tensor);
        tape.note(Event::read, {tape.kind(call(self, names()._first, tensor))});
    }
    return number;
}

Place Tape::place(const py::object& self, const py::object& weight) {
    Tape& tape = body<Tape>(self);
    if (!tape.is_tensor(weight)) {
        const py::int_ number(tape.constants.size());
        PyObject* known = PyDict_SetDefault(tape.constants.ptr(), weight.ptr(), number.ptr());
        if (known == nullptr) throw py::error_already_set();
        return {Place::constant, PyLong_AsLong(known)};
    }
    const py::object base = attribute(weight, names()._base);
    const bool needs = flag(weight, names().requires_grad);
    if (base.is_none() || (needs && flag(weight, names().is_leaf))) return {number_of_tensor(self, weight), 0};
    for (const py::handle t : given(self))
        if (t.is(weight)) return {number_of_tensor(self, weight), 0};
    const long offset = integer_of(call(weight, names().storage_offset));
    const py::object dtype = attribute(weight, names().dtype);
    for (const Elements& of : elements(self, base)) {
        const long at = offset - of.offset;
        if (0 <= at && at < of.count && of.requires_grad == needs && dtype.ptr() == of.dtype) return {of.number, at};
    }
    return {number_of_tensor(self, weight), 0};
}

const py::object& Tape::given(const py::object& self) {
    Tape& tape = body<Tape>(self);
    if (!tape.given_) tape.given_ = call(self, names()._given);
    return tape.given_;
}

const std::vector<Elements>& Tape::elements(const py::object& self, const py::object& base) {
    Tape& tape = body<Tape>(self);
    const auto known = tape.elements_.find(base.ptr());
    if (known != tape.elements_.end()) return known->second;
    std::vector<py::object> of;
    for (const py::handle t : given(self))
        if (t.is(base) || attribute(t, names()._base).is(base)) of.push_back(py::reinterpret_borrow<py::object>(t));
    of.push_back(base);
    std::vector<Elements> found;
    for (const py::object& t : of) {
        const long count = asked(t, names().is_contiguous) ? integer_of(call(t, names().numel)) : 0;
        found.push_back({number_of_tensor(self, t), integer_of(call(t, names().storage_offset)), count,
                         flag(t, names().requires_grad), attribute(t, names().dtype).ptr()});
    }
    return tape.elements_[base.ptr()] = std::move(found);
}

}  // namespace fastnas
