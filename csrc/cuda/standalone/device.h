// Where the kernels run: a GPU, through CUDA's runtime (device_cuda.cu), or the CPU (device_emulated.cpp).
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "../../gpu/job.h"

namespace fastnas::device {

// Why there is none, or "".
std::string missing();
std::string name();

void* allocate(std::size_t bytes);
void release(void* memory);
void copy_to(void* memory, const void* from, std::size_t bytes);
void copy_from(void* to, const void* memory, std::size_t bytes);

// What every kernel takes; as `Tensors<float>` of block.cuh, which only a compiler of kernels can read.
struct Tensors {
    float* bases[gpu::kBases];
    const float* params;
    float* floats;
    float* statistics;
    float* grads;
    const gpu::i64* table;
};
void launch(const Tensors& tensors, const gpu::Launch& launch);

// An array there.
template <class T>
class Array {
  public:
    explicit Array(const std::vector<T>& values) : size_(values.size()), memory_(allocate(bytes())) {
        copy_to(memory_, values.data(), bytes());
    }
    ~Array() { release(memory_); }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    T* data() const { return static_cast<T*>(memory_); }
    std::vector<T> values() const {
        std::vector<T> result(size_);
        copy_from(result.data(), memory_, bytes());
        return result;
    }

  private:
    std::size_t bytes() const { return size_ * sizeof(T); }
    std::size_t size_;
    void* memory_;
};

}  // namespace fastnas::device
