// The kernels for one storage type: FASTNAS_SCALAR is float, Half or Bfloat.
#include "kernels.cuh"

#ifndef FASTNAS_SCALAR
#define FASTNAS_SCALAR float
#endif

namespace fastnas::gpu {

// Blocks that a multiprocessor should hold at least: leaves 255 registers a thread. Left to itself the compiler takes
// fewer and spills.
constexpr int kBlocks = 2;

using Scalar = FASTNAS_SCALAR;

#define FASTNAS_KERNEL(name, Memory)                                \
    extern "C" __global__ void __launch_bounds__(kThreads, kBlocks) \
        fastnas_##name(Tensors<Scalar> tensors, Launch launch) {    \
        __shared__ Memory memory;                                   \
        name(tensors, launch, memory);                              \
    }
FASTNAS_KERNELS(FASTNAS_KERNEL)

}  // namespace fastnas::gpu
