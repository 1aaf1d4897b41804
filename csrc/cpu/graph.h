// What a cell computes (fastnas/ops/spec.py), with the places of its parameters resolved.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace fastnas {

// What a forward keeps for its backward.
enum class Memory { none, lean, fast };
Memory memory_mode(const std::string& name);

struct NormDescription {
    double eps;
    bool affine, batch;
};

struct StageDescription {
    enum class Kind { depthwise, pointwise, reduce, resize } kind;
    int kernel, dilation;
};

struct CandidateDescription {
    enum class Pool { none, max, avg } pool;
    bool identity;
    std::vector<StageDescription> stages;
};

struct EdgeDescription {
    int source, target, stride;
    bool searched;
    std::vector<CandidateDescription> candidates;
    int shares = -1;  // an earlier edge, whose parameters and entries of α it takes
    int like = -1;    // the state whose size its target has; -1: what the stride says
};

// A batch norm. Numbers are places in the lists of parameters, running statistics and the batch's statistics; -1 is
// none.
struct Norm {
    double eps;
    int channels;
    int gamma = -1, beta = -1, running = -1, statistics = -1;
    bool batch() const { return running < 0; }
};

// One stage of a candidate: ReLU, gather, 1×1 convolution, batch norm. A reduce has two gathers and two weights; a
// resize gathers before ReLU.
struct Stage : StageDescription {
    int stride, in_channels, out_channels;
    int depthwise = -1, pointwise = -1;
    int saved = -1;  // number of its output among those that "fast" saves
    Norm norm;
    int gathers() const { return kind == Kind::reduce ? 2 : 1; }
    // Whether pixels of what it gathers share pixels of its input.
    bool overlaps() const { return kind == Kind::depthwise || kind == Kind::resize; }
};

struct Candidate {
    using Pool = CandidateDescription::Pool;
    Pool pool;
    bool identity;
    int alpha;  // -1: weight 1
    Norm pool_norm;
    std::vector<Stage> stages;
};

struct Edge {
    int source, target, stride;
    std::vector<Candidate> candidates;
    int like = -1;
    int owner;  // number of the edge whose parameters it takes: its own, or an earlier one's
    bool has(Candidate::Pool pool) const;
    bool is_plain_sum() const;
    bool resizes() const;
};

struct Graph {
    Graph(std::vector<int> channels, int inputs, const std::vector<EdgeDescription>& edges, std::vector<int> outputs,
          const std::vector<NormDescription>& norms);

    std::vector<int> channels;
    int inputs;
    std::vector<Edge> edges;
    std::vector<int> outputs;
    int statistics = 0;  // channels of all norms that use the batch's statistics
    int parameters = 0, running = 0, alphas = 0;
    int pad = 0;  // largest reach of a depthwise convolution
    int saved_stages = 0;

    bool is_input(int state) const { return state < inputs; }
    bool is_output(int state) const;
    bool is_read(int state) const;  // by a backward: not if it only goes on into sums that α does not weigh
    std::vector<const Edge*> leaving(int state) const;
    const Edge* leaving(int state, int stride, Candidate::Pool pool) const;  // one with this pool, or null
    std::vector<Size> sizes(const std::vector<Size>& inputs) const;
};

}  // namespace fastnas
