// All kernels, in the order of plan.h's `Kernel`. A kernel is a device function
//
//     template <class T> void kernel(const Tensors<T>&, const Launch&, Memory&)
//
// that kernels.cu makes a kernel of on a GPU, and emulate/ runs on the CPU.
#pragma once

#include "backward.cuh"
#include "forward.cuh"
#include "source_back.cuh"

// X(name, shared memory, blocks that a multiprocessor should hold at least): what a kernel may take of registers. Left
// to itself the compiler takes fewer, and spills, or more than it gains by them.
#define FASTNAS_KERNELS(X)          \
    X(moments, TileMemory, 2)       \
    X(norms, MergeMemory, 2)        \
    X(apply, TileMemory, 2)         \
    X(grad_sums, TileMemory, 2)     \
    X(coefficients, MergeMemory, 2) \
    X(stage_back, StageMemory, 6)   \
    X(source_back, SumsMemory, 3)   \
    X(reduce, MergeMemory, 2)
