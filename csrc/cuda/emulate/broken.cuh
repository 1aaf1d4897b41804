// Kernels with mistakes that the emulation must find; otherwise its silence about the others means nothing. They take
// `launch.tile` numbers from the first base and write them, reversed, to the second.
#pragma once

#include "../block.cuh"

namespace fastnas::gpu {

struct ReverseMemory {
    float values[kThreads];
};

template <class T, bool kBarrier>
__device__ void reverse(const Tensors<T>& t, const Launch& launch, ReverseMemory& memory) {
    const int i = int(threadIdx.x);
    if (i < launch.tile) memory.values[i] = to_float(t.bases[0][i]);
    if (kBarrier) __syncthreads();
    if (i < launch.tile) t.bases[1][i] = from_float<T>(memory.values[launch.tile - 1 - i]);
}

// One element too far.
template <class T>
__device__ void out_of_bounds(const Tensors<T>& t, const Launch& launch, ReverseMemory&) {
    const int i = int(threadIdx.x);
    if (i <= launch.tile) t.bases[1][i] = t.bases[0][0];
}

// One element too far in shared memory.
template <class T>
__device__ void out_of_shared(const Tensors<T>&, const Launch&, ReverseMemory& memory) {
    memory.values[threadIdx.x + 1] = 0;
}

// Half of the threads go home before a barrier.
template <class T>
__device__ void uneven(const Tensors<T>&, const Launch&, ReverseMemory&) {
    if (threadIdx.x % 2) return;
    __syncthreads();
}

// A lane shuffles with one that its mask leaves out.
template <class T>
__device__ void half_shuffle(const Tensors<T>& t, const Launch&, ReverseMemory&) {
    if (threadIdx.x % kLanes >= 16) return;
    t.bases[1][threadIdx.x] = from_float<T>(__shfl_xor_sync(0x0000ffffu, 1.0f, 16));
}

#define FASTNAS_BROKEN(X) X(reverse_right) X(reverse_racing) X(out_of_bounds) X(out_of_shared) X(uneven) X(half_shuffle)

template <class T>
__device__ void reverse_right(const Tensors<T>& t, const Launch& launch, ReverseMemory& memory) {
    reverse<T, true>(t, launch, memory);
}
template <class T>
__device__ void reverse_racing(const Tensors<T>& t, const Launch& launch, ReverseMemory& memory) {
    reverse<T, false>(t, launch, memory);
}

}  // namespace fastnas::gpu
