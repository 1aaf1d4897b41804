// The test program's own aligned `operator new`, from which the engine takes its memory.
#pragma once

#include <cstddef>
#include <new>

namespace fastnas::test {

// The allocation after `count` others throws std::bad_alloc, once; -1: none does.
void fail_allocation(int count);

// For memory that the engine reads as whole vectors.
template <class T>
struct Aligned {
    using value_type = T;
    Aligned() = default;
    template <class U>
    Aligned(const Aligned<U>&) {}
    T* allocate(std::size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t(64))); }
    void deallocate(T* data, std::size_t) { ::operator delete(data, std::align_val_t(64)); }
    // Leaves elements as they are: NaN, see memory.cpp.
    template <class U>
    void construct(U*) {}
    bool operator==(const Aligned&) const { return true; }
    bool operator!=(const Aligned&) const { return false; }
};

}  // namespace fastnas::test
