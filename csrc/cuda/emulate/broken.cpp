// Runs a kernel of broken.cuh, for sanitizers to find what is wrong with it.
#include <vector>

#include "launch.h"
//
#include "broken.cuh"

using namespace fastnas;

int main(int, char** arguments) {
    gpu::Launch launch{};
    launch.grid_x = launch.grid_y = 1;
    launch.tile = gpu::kThreads / 2;
    std::vector<float> given(launch.tile), written(launch.tile);
    gpu::Tensors<float> tensors{};
    tensors.bases[0] = given.data();
    tensors.bases[1] = written.data();
#define FASTNAS_CASE(kernel)                  \
    if (arguments[1] == std::string(#kernel)) \
        emulate::launch<float, gpu::ReverseMemory>(gpu::kernel<float>, tensors, launch, 1);
    FASTNAS_BROKEN(FASTNAS_CASE)
}
