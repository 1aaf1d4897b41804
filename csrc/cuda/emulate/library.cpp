// The kernels as a shared library, for tests/emulated.py.
#include "launch.h"
//
#include "broken.cuh"

namespace {

using namespace fastnas;

thread_local std::string error;

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

// dtype: 0 float, 1 half, 2 bfloat16, which is what the tensors' bases are. If not 0 comes back, see fastnas_error.
int fastnas_launch(int dtype, const void* tensors, const gpu::Launch* launch, unsigned seed) {
    return attempt([&] {
        if (dtype == 0)
            emulate::launch(*static_cast<const gpu::Tensors<float>*>(tensors), *launch, seed);
        else if (dtype == 1)
            emulate::launch(*static_cast<const gpu::Tensors<gpu::Half>*>(tensors), *launch, seed);
        else
            emulate::launch(*static_cast<const gpu::Tensors<gpu::Bfloat>*>(tensors), *launch, seed);
    });
}

// A kernel of broken.cuh, in float.
int fastnas_broken(const char* name, const void* tensors, const gpu::Launch* launch, unsigned seed) {
    return attempt([&] {
#define FASTNAS_CASE(kernel)                               \
    if (std::string(name) == #kernel)                      \
        return emulate::launch<float, gpu::ReverseMemory>( \
            gpu::kernel<float>, *static_cast<const gpu::Tensors<float>*>(tensors), *launch, seed);
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
