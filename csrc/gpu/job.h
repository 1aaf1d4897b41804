// What the GPU kernels read of a launch plan (plan.h): tables of whole numbers. This file is read by the host's
// compiler, by NVRTC and by nvcc; kernels/columns.py has the same columns for Triton.
//
// Activations are (N, C, H, W) with dense images; their scalar type T is float, half or bfloat16. Everything else is
// float. A row of a table is a struct of 64-bit numbers; places are in elements; -1 is none.
#pragma once

namespace fastnas::gpu {

using i64 = long long;

// Tensors of a call. The first are of type T, the others are float.
enum Base : int {
    kInput0,  // the given states, as many as kInputs; if there are more, all lie in the first
    kInput1,
    kInput2,
    kInput3,
    kOut,        // result, of which each output state is a slice of channels
    kSaved,      // inner states, and in "fast" the outputs of stages that are not last
    kScratch,    // lives as long as the call
    kGradOut,    // gradient of the result
    kGradInput,  // gradients of all given states, one after the other
    kBases,
};
constexpr int kInputs = 4;

// Where a state, or what is like one, lies: element (n, c, y, x) at offset + n·image + (c·H + y)·W + x of its base.
struct View {
    i64 base, offset, image;
};

enum Kind : int { kConvolution, kMaxPool, kAvgPool, kIdentity };

// One stage of one candidate. In the notation of docs/engine.md
//
//     d[c, y, x] = Σ_ij w[c, i, j] · ReLU(x̂)[c, stride·y + start + dilation·i, stride·x + start + dilation·j]
//     u = W·d,    o = (u - mean)·scale + shift
//
// where x̂ is a state or the normed output of the stage before, and is 0 outside. A 1×1 convolution has one tap and no
// w; a factorised reduce is two such stages, start 0 and 1. A stage that resamples is a 1×1 convolution whose x̂ is a
// state, bilinearly resampled to the size of u: output y lies at y·(in_height - 1)/(out_height - 1), corners' pixels on
// each other. Pools have neither ReLU nor W: u is the 3×3 pool with padding 1 of x (max propagates NaN, the mean counts
// only what is inside). For the identity o = scale·x.
struct Job {
    i64 kind, kernel, dilation, stride, start, resample;
    i64 in_channels, in_height, in_width, out_channels, out_height, out_width;
    i64 first;  // channel of the edge's target that the first of u belongs to
    View input;
    i64 input_norm;            // `norm` of the stage before; -1: the input is a state
    i64 depthwise, pointwise;  // in params: w (C_in, K, K) or -1, W (C_out, C_in)
    View output;               // u, where it is kept, which may be its target's own place; base -1: nowhere
    i64 moments;               // in floats (tiles, 2, C_out): a tile's means and Σ(u - mean)²; -1: not wanted. Then
                               // (tiles, C_out): what the means' rounding to float left out

    // The batch norm of u.
    i64 norm;                     // in floats (4, C_out): mean, scale, shift, (variance + ε)^-½; -1: the identity
    i64 eps;                      // the bits of a double
    i64 batch;                    // 1: statistics of the batch, 0: running ones
    i64 gamma, beta;              // in params, or -1
    i64 alpha;                    // in params, the factor of o: scale and shift contain it; -1: 1
    i64 running, running_stride;  // in params: the mean's place, and how much further on the variance's is
    i64 statistics;  // in statistics: the mean's place; the variance's is `channels` of the plan further on

    // Backward.
    View grad;  // g, the gradient of o/α, if this stage is the last; else `next` knows it
    i64 sums;   // in floats (sums_count, 2, C_out): Σ g and Σ g·(u - mean) of a tile, or of a part of `next`;
                // identity: 0 and Σ g·x
    i64 sums_count;
    i64 coefficients;           // in floats (3, C_out): ∂u = a·g + b·(u - mean) + c
    i64 affine_sums;            // in floats (2, C_out): this stage's part of ∂γ and ∂β; -1: not wanted
    i64 alpha_sum;              // in floats: this stage's part of ∂α; -1: not wanted
    View grad_gathered;         // ∂d (N, C_in, H_out, W_out)
    i64 rectify;                // 1: with the derivative of ReLU: of a stage that resamples, or whose ∂d is its
                                // source's whole gradient
    i64 weight_sums;            // in floats (parts, C_out·C_in + C_in·K·K): a part's ∂W and ∂w; -1
    i64 before, next;           // the jobs of the stages before and after, or -1
    i64 members, member_count;  // of a pool's leader: its edges' jobs, a list; else 0 of them
};

// A state, for the kernels that write one or its gradient.
struct State {
    i64 channels, height, width;
    View value;  // in a backward base -1: its gradient does not depend on it
    View grad;
    View given;  // what the cell's caller gives of its gradient; base -1: nothing
};

// grads[place + i] = Σ_p floats[source + p·stride + i], plus what is there if `accumulate`
struct Reduction {
    i64 source, parts, stride, size, place, accumulate;
};

// A kernel's arguments besides tensors.
struct Launch {
    int kernel;
    int grid_x, grid_y;  // tiles or parts, jobs
    int list, count;     // in the table: numbers of jobs (or of reductions) to work on
    int state;           // place of a State in the table
    int tile;            // pixels that a block, or one turn of it, works on; of N·H·W
    int images;
    int channels;                   // of the plan's statistics
    int in_channels, out_channels;  // the most that any of the jobs has
    int accumulate;                 // apply adds to what is there
    int resample;                   // whether any of the jobs, of those that are computed, does
};

}  // namespace fastnas::gpu
