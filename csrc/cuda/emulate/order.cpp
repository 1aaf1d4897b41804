#include <algorithm>
#include <numeric>
#include <random>

#include "cuda.h"

thread_local Dim3 threadIdx, blockIdx;

namespace fastnas::emulate {

std::vector<int> shuffled(int count, unsigned seed) {
    std::vector<int> order(count);
    std::iota(order.begin(), order.end(), 0);
    std::mt19937 engine(seed);
    if (seed) std::shuffle(order.begin(), order.end(), engine);
    return order;
}

}  // namespace fastnas::emulate
