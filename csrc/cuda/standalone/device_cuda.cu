#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../kernels.cu"
#include "device.h"

namespace fastnas::device {

namespace {

void check(cudaError_t status) {
    if (status == cudaSuccess) return;
    std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(status));
    std::exit(2);
}

}  // namespace

std::string missing() {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess) return std::string("no CUDA device: ") + cudaGetErrorString(status);
    return count ? "" : "no CUDA device";
}

std::string name() {
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, 0));
    return std::string(properties.name) + ", compute capability " + std::to_string(properties.major) + "." +
           std::to_string(properties.minor);
}

void* allocate(std::size_t bytes) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes ? bytes : 1));
    return memory;
}

void release(void* memory) {
    check(cudaFree(memory));
}

void copy_to(void* memory, const void* from, std::size_t bytes) {
    check(cudaMemcpy(memory, from, bytes, cudaMemcpyHostToDevice));
}

void copy_from(void* to, const void* memory, std::size_t bytes) {
    check(cudaMemcpy(to, memory, bytes, cudaMemcpyDeviceToHost));
}

void launch(const Tensors& tensors, const gpu::Launch& launch) {
    gpu::Tensors<float> t;
    static_assert(sizeof t == sizeof tensors, "the same members");
    std::memcpy(&t, &tensors, sizeof t);
    using Kernel = void (*)(gpu::Tensors<float>, gpu::Launch);
#define FASTNAS_ADDRESS(name, Memory, kBlocks) gpu::fastnas_##name,
    static const Kernel kernels[] = {FASTNAS_KERNELS(FASTNAS_ADDRESS)};
#undef FASTNAS_ADDRESS
    kernels[launch.kernel]<<<dim3(launch.grid_x, launch.grid_y), gpu::kThreads>>>(t, launch);
    check(cudaGetLastError());
}

}  // namespace fastnas::device
