// Which GPU kernels compute a cell, in which order, on what: a pure function of the cell and its sizes. It needs
// neither torch nor CUDA, so it can be printed, tested and counted anywhere; Triton, CUDA and the standalone program
// all run it.
//
// docs/gpu.md names the kernels and their formulas; job.h says what they read.
#pragma once

#include <vector>

#include "../cpu/graph.h"
#include "job.h"

namespace fastnas::gpu {

enum Kernel : int {
    kMoments,       // grid (tiles, jobs): u into `output`, its moments into `moments`
    kNorms,         // grid (1, jobs): merges moments into statistics, or reads statistics; writes `norm`
    kApply,         // grid (tiles, 1): a state = Σ o over the listed jobs
    kGradSums,      // grid (tiles, jobs): `sums`
    kCoefficients,  // grid (1, jobs): merges sums; writes `coefficients`, ∂γ, ∂β, `alpha_sum`
    kStageBack,     // grid (parts, jobs): ∂u, then ∂d, `weight_sums` (∂W, ∂w), and `sums` of the stage before
    kSourceBack,    // grid (tiles, 1): a state's gradient = what is given + Σ over the listed jobs
    kReduce,        // grid (chunks of kReduceChunk, reductions): grads
};
constexpr int kKernels = kReduce + 1;
constexpr int kReduceChunk = 32;

// How a backend cuts its work: a tile holds at most `elements` values of all channels of a pixel, and from `least` to
// `most` pixels, powers of two. A launch of kStageBack has some `blocks` blocks: more share the work better, fewer
// leave less to add up.
struct Tiling {
    int elements, least, most, blocks;
    int pixels(int channels) const;
};

// What a backward must give.
struct Wants {
    bool inputs, alpha, parameters;
};

struct Plan {
    std::vector<Launch> launches;
    std::vector<i64> table;
    int jobs = 0;                            // rows of Job at the table's start
    i64 saved = 0, scratch = 0, floats = 0;  // elements that the bases need
    i64 grad_inputs = 0, grads = 0;          // elements
};

// `inputs` are the sizes of the given states. Parameters, running statistics and α lie in this order, one after the
// other, in params; their gradients, without those of running statistics, in grads.
Plan plan_forward(const Graph& graph, int images, const std::vector<Size>& inputs, Memory memory, const Tiling& tiling);
Plan plan_backward(const Graph& graph, int images, const std::vector<Size>& inputs, Memory memory, const Tiling& tiling,
                   Wants wants);

}  // namespace fastnas::gpu
