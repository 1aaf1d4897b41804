#include "memory.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace {

std::atomic<int> until_failure{-1};

}  // namespace

namespace fastnas::test {

void fail_allocation(int count) {
    until_failure = count;
}

}  // namespace fastnas::test

// Fresh memory is full of NaN in either precision, so that what is read before it was written shows in the results.
void* operator new(std::size_t bytes, std::align_val_t alignment) {
    if (until_failure >= 0 && until_failure-- == 0) throw std::bad_alloc();
    const std::size_t unit = std::size_t(alignment);
    void* data = std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit);
    if (!data) throw std::bad_alloc();
    std::memset(data, 0xFF, bytes);
    return data;
}

void operator delete(void* data, std::align_val_t) noexcept {
    std::free(data);
}

void operator delete(void* data, std::size_t, std::align_val_t) noexcept {
    std::free(data);
}
