// The kernels as a shared library, for tests/emulated.py.
#include "launch.h"
//
#include "broken.cuh"

namespace {

using namespace fastnas;

thread_local std::string error;

template <class T>
gpu::Tensors<T> tensors_of(void* const* pointers) {
    gpu::Tensors<T> t;
    for (int i = 0; i < gpu::kBases; ++i) t.bases[i] = static_cast<T*>(pointers[i]);
    pointers += gpu::kBases;
    t.params = static_cast<const float*>(pointers[0]);
    t.floats = static_cast<float*>(pointers[1]);
    t.statistics = static_cast<float*>(pointers[2]);
    t.grads = static_cast<float*>(pointers[3]);
    t.table = static_cast<const gpu::i64*>(pointers[4]);
    return t;
}

template <class Work>
int attempt(Work work) {
    try {
        work();
        return 0;
    } catch (const std::exception& e) {
        error = e.what();
        return 1;
    }
}

}  // namespace

extern "C" {

const char* fastnas_error() {
    return error.c_str();
}

// bases, params, floats, statistics, grads, table. dtype: 0 float, 1 half, 2 bfloat16. Other than 0: fastnas_error.
int fastnas_launch(int dtype, void* const* pointers, const gpu::Launch* launch, unsigned seed) {
    return attempt([&] {
        if (dtype == 0)
            emulate::launch(tensors_of<float>(pointers), *launch, seed);
        else if (dtype == 1)
            emulate::launch(tensors_of<gpu::Half>(pointers), *launch, seed);
        else
            emulate::launch(tensors_of<gpu::Bfloat>(pointers), *launch, seed);
    });
}

// A kernel of broken.cuh, in float.
int fastnas_broken(const char* name, void* const* pointers, const gpu::Launch* launch, unsigned seed) {
    return attempt([&] {
#define FASTNAS_CASE(kernel)                                                                                        \
    if (std::string(name) == #kernel)                                                                               \
        return emulate::launch<float, gpu::ReverseMemory>(gpu::kernel<float>, tensors_of<float>(pointers), *launch, \
                                                          seed);
        FASTNAS_BROKEN(FASTNAS_CASE)
        throw std::invalid_argument(std::string("no broken kernel is called ") + name);
    });
}

void fastnas_to_half(const float* from, unsigned short* to, int count) {
    for (int i = 0; i < count; ++i) to[i] = gpu::from_float<gpu::Half>(from[i]).bits;
}
void fastnas_to_bfloat(const float* from, unsigned short* to, int count) {
    for (int i = 0; i < count; ++i) to[i] = gpu::from_float<gpu::Bfloat>(from[i]).bits;
}
void fastnas_from_half(const unsigned short* from, float* to, int count) {
    for (int i = 0; i < count; ++i) to[i] = gpu::to_float(gpu::Half{from[i]});
}
void fastnas_from_bfloat(const unsigned short* from, float* to, int count) {
    for (int i = 0; i < count; ++i) to[i] = gpu::to_float(gpu::Bfloat{from[i]});
}
}
