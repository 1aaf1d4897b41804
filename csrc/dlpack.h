// A tensor in a block of the pool, as DLPack's capsule (https://dmlc.github.io/dlpack, version 0), which
// torch.from_dlpack understands without either side including the other's headers.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "cpu/arena.h"

namespace fastnas {

struct DLTensor {
    void* data;
    struct {
        std::int32_t type = 1, id = 0;  // the CPU
    } device;
    std::int32_t ndim = 1;
    struct {
        std::uint8_t code = 2, bits;  // floating point
        std::uint16_t lanes = 1;
    } dtype;
    std::int64_t* shape;
    std::int64_t* strides = nullptr;
    std::uint64_t byte_offset = 0;
};

struct DLManagedTensor {
    DLTensor tensor;
    void* manager;
    void (*deleter)(DLManagedTensor*);
};

// A flat tensor of `count` floating-point numbers, not initialised. Its memory returns to the pool with the last tensor
// that uses it.
inline pybind11::capsule pooled_tensor(std::int64_t count, std::size_t element_size) {
    struct Owner {
        Workspace workspace;
        std::int64_t count;
        DLManagedTensor managed;
    };
    auto* owner = new Owner{Workspace(std::size_t(count) * element_size, true), count, {}};
    owner->managed.tensor.data = owner->workspace.data();
    owner->managed.tensor.dtype.bits = static_cast<std::uint8_t>(8 * element_size);
    owner->managed.tensor.shape = &owner->count;
    owner->managed.manager = owner;
    owner->managed.deleter = [](DLManagedTensor* self) { delete static_cast<Owner*>(self->manager); };
    return pybind11::capsule(&owner->managed, "dltensor", [](PyObject* capsule) {
        // Whoever takes the tensor renames the capsule.
        if (!PyCapsule_IsValid(capsule, "dltensor")) return;
        auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, "dltensor"));
        managed->deleter(managed);
    });
}

}  // namespace fastnas
