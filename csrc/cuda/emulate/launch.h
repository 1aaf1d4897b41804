// Launches a kernel on the CPU.
#pragma once

#include <cstddef>
#include <memory>
#include <stdexcept>

#include "cuda.h"
//
#include "../../gpu/plan.h"
#include "../kernels.cuh"

namespace fastnas::emulate {

template <class T, class Memory>
void launch(void (*kernel)(const gpu::Tensors<T>&, const gpu::Launch&, Memory&), const gpu::Tensors<T>& tensors,
            const gpu::Launch& launch, unsigned seed) {
    const std::unique_ptr<Memory> memory(new Memory);  // by itself, so that AddressSanitizer knows its end
    run({launch.grid_x, launch.grid_y, gpu::kThreads, seed}, memory.get(), sizeof(Memory),
        [&] { kernel(tensors, launch, *memory); });
}

template <class T>
void launch(const gpu::Tensors<T>& tensors, const gpu::Launch& arguments, unsigned seed) {
    int number = 0;
#define FASTNAS_CASE(name, Memory, kBlocks) \
    if (arguments.kernel == number++) return launch<T, gpu::Memory>(gpu::name<T>, tensors, arguments, seed);
    FASTNAS_KERNELS(FASTNAS_CASE)
#undef FASTNAS_CASE
    throw std::invalid_argument("no kernel has the number " + std::to_string(arguments.kernel));
}

}  // namespace fastnas::emulate
