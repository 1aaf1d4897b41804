#include <cstdlib>

#include "../emulate/launch.h"
//
#include "device.h"

namespace fastnas::device {

std::string missing() {
    return "";
}
std::string name() {
    return "emulation on the CPU, " + std::to_string(gpu::kThreads) + " threads a block";
}

void* allocate(std::size_t bytes) {
    return ::operator new(bytes);
}
void release(void* memory) {
    ::operator delete(memory);
}
void copy_to(void* memory, const void* from, std::size_t bytes) {
    std::memcpy(memory, from, bytes);
}
void copy_from(void* to, const void* memory, std::size_t bytes) {
    std::memcpy(to, memory, bytes);
}

void launch(const Tensors& tensors, const gpu::Launch& launch) {
    gpu::Tensors<float> t;
    static_assert(sizeof t == sizeof tensors, "the same members");
    std::memcpy(&t, &tensors, sizeof t);
    emulate::launch(t, launch, 1);
}

}  // namespace fastnas::device
