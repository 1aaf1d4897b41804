// All kernels, in the order of plan.h's `Kernel`, with the shared memory of each. A kernel is a device function
//
//     template <class T> void kernel(const Tensors<T>&, const Launch&, Memory&)
//
// that kernels.cu makes a kernel of on a GPU, and emulate/ runs on the CPU.
#pragma once

#include "backward.cuh"
#include "forward.cuh"
#include "source_back.cuh"

#define FASTNAS_KERNELS(X)       \
    X(moments, TileMemory)       \
    X(norms, MergeMemory)        \
    X(apply, TileMemory)         \
    X(grad_sums, TileMemory)     \
    X(coefficients, MergeMemory) \
    X(stage_back, TileMemory)    \
    X(source_back, NoMemory)     \
    X(reduce, NoMemory)
