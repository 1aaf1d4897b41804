// The kernels for one storage type: FASTNAS_SCALAR is float, Half or Bfloat.
#include "kernels.cuh"

#ifndef FASTNAS_SCALAR
#define FASTNAS_SCALAR float
#endif

namespace fastnas::gpu {

using Scalar = FASTNAS_SCALAR;

template <class T>
constexpr bool kIsHalf = false;
template <>
constexpr bool kIsHalf<Half> = true;

// With more of one kernel's blocks than this a compiler for one of the chips spills.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 750
constexpr int kMostBlocks = 2;
#else
constexpr int kMostBlocks = kIsHalf<Scalar> ? 5 : 6;
#endif

#define FASTNAS_KERNEL(name, Memory, kBlocks)                                                             \
    extern "C" __global__ void __launch_bounds__(kThreads, kBlocks < kMostBlocks ? kBlocks : kMostBlocks) \
        fastnas_##name(Tensors<Scalar> tensors, Launch launch) {                                          \
        __shared__ Memory memory;                                                                         \
        name(tensors, launch, memory);                                                                    \
    }
FASTNAS_KERNELS(FASTNAS_KERNEL)

}  // namespace fastnas::gpu
