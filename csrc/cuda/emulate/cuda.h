// As much of CUDA C++ as the kernels use, for the CPU: included before them by a compiler that knows none of it.
#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <string>

#define __device__

struct Dim3 {
    unsigned x = 0, y = 0, z = 0;
};
// Calls, so that ThreadSanitizer does not see fibers share what they read.
Dim3 thread_index();
Dim3 block_index();
#define threadIdx thread_index()
#define blockIdx block_index()

struct alignas(16) float4 {
    float x, y, z, w;
};

void __syncthreads();
float __shfl_xor_sync(unsigned mask, float value, int distance);

template <class T>
T __ldg(const T* address) {
    return *address;
}

template <class To, class From>
To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
inline float __uint_as_float(unsigned bits) {
    return bits_as<float>(bits);
}
inline unsigned __float_as_uint(float value) {
    return bits_as<unsigned>(value);
}
inline double __longlong_as_double(long long bits) {
    return bits_as<double>(bits);
}

namespace fastnas::emulate {

struct Grid {
    int x, y, threads;
    unsigned seed;  // of the order in which blocks, and threads between barriers, run; 0: ascending
};

// Runs `thread` as every thread of every block, one block after the other. Before each, shared memory is filled with
// NaN. Throws std::runtime_error where the program would hang or read what no lane gives.
void run(const Grid& grid, void* shared, std::size_t size, const std::function<void()>& thread);

}  // namespace fastnas::emulate
