// What the code of a region does with its candidates: calls, products with weights, sums (fastnas/swap/promise.py).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <unordered_map>
#include <utility>
#include <vector>

#include "boxed.h"

namespace fastnas {

struct Value;

// A candidate's call that has been promised; `value` is what was promised for it, while somebody holds that.
struct Call {
    py::object recipe, source, shape;
    long number = 0, repeats = 1;
    bool done = false;
    Value* value = nullptr;
};

// A call, a value or a tensor in a sum; nothing in place of what cannot be. `whole`: as it is, and not the terms that
// it consists of.
struct Part {
    py::object what;
    bool whole = false;
    long number = 0;
};

// The promise of `weight`, if there is one, times the sum of one or two parts. The garbage collector need not know it:
// values refer to each other, to calls and to the tape in one direction, once the tape has been cleared.
struct Value {
    py::object tape, shape, dtype, weight;
    Part first, second;
    long number = 0;
    py::object tensor;  // once it has been computed
    py::object terms;   // the parts, weights of weights multiplied out, once somebody asked

    ~Value();

    bool computed() const { return tensor && !tensor.is_none(); }
    Call* promised_call() const { return first.what && is_boxed<Call>(first.what) ? &body<Call>(first.what) : nullptr; }
};

// Where a weight is: the number of a tensor and of one of its elements; `constant` and the number of a constant.
struct Place {
    static constexpr long constant = -1;
    long number, at;
};

// A tensor of which weights may be elements; of none if it is not contiguous.
struct Elements {
    long number, offset, count;
    bool requires_grad;
    PyObject* dtype;  // PyTorch's dtypes live as long as it does
};

// What a history consists of. A number of numbers follows that depends on what it is.
enum class Event : std::int64_t { begun, read, called, scaled, summed, wrapped };

// One call of a region. Numbers tensors, constants and values in the order in which they are met, so that calls that
// are alike number them alike, and writes down what is done in a history. Python's subclass (fastnas/swap/read.py,
// lazy.py) has the methods that names.h lists.
struct Tape {
    py::object value_type, tensor_type, modes, mode, alone, kinds;
    py::list calls, inputs;
    py::dict constants, pending;
    long values = 0;
    bool half = false;  // under autocast

    template <class Visit>
    void references(Visit&& visit) {
        const auto all = [&](auto&... held) { (visit(static_cast<py::object&>(held)), ...); };
        all(value_type, tensor_type, modes, mode, alone, kinds, calls, inputs, constants, pending, given_);
    }

    py::object current_mode() const;  // what `modes` return, the first of which is whether gradients are on
    bool is_tensor(const py::handle& x) const;
    bool open() const;  // whether promises can be made: they are all computed in the modes in which the run began
    bool sums() const;  // whether sums and products can be promised: autocast leaves these as they are
    bool weighs(const py::object& x) const;  // whether a value times it is a value again
    bool is_state(long number) const { return number < long(states_.size()) && states_[number]; }
    void add_state(long number);
    void clear();
    py::bytes history() const;
    void begin(const py::object& after);  // a new history; after None, it is like no other

    // These take the tape as Python's object, to which the promises that they make refer.
    static py::object promise(const py::object& self, const py::object& recipe, const py::object& x);
    static py::object pending_calls(const py::object& self, const py::object& recipe);  // a list, or nothing
    static py::object promised(const py::object& self, const py::object& call);
    static py::object scaled(const py::object& self, const py::object& value, const py::object& weight);
    static py::object sum(const py::object& self, const py::object& a, const py::object& b);
    static py::object of(const py::object& self, const py::object& tensor);
    static long number(const py::object& self, const py::object& x);
    static Place place(const py::object& self, const py::object& weight);

  private:
    static py::object make(const py::object& self, const Value& described);
    static Part part(const py::object& self, const py::object& x, const py::object& shape);
    static long number_of_tensor(const py::object& self, const py::object& tensor);
    static const py::object& given(const py::object& self);
    static const std::vector<Elements>& elements(const py::object& self, const py::object& base);

    void note(Event event, std::initializer_list<std::int64_t> numbers);
    std::int64_t kind(const py::object& what) const;

    std::vector<std::int64_t> history_;
    std::vector<bool> states_;
    std::unordered_map<PyObject*, long> numbers_;  // of tensors, which the list keeps
    std::unordered_map<PyObject*, std::vector<Elements>> elements_;
    py::object given_;  // the tensors of the region's arguments, once they were asked for
};

inline bool is_value(const py::handle& x) {
    return is_boxed<Value>(x);
}

}  // namespace fastnas
