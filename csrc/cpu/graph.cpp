#include "graph.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <string>

namespace fastnas {

namespace {

// Hands out places in the lists of a cell, in the order of fastnas/ops/spec.py.
class Places {
  public:
    Places(Graph& graph, const std::vector<NormDescription>& norms) : graph_(graph), norms_(norms) {}

    // What follows belongs to an edge with places of its own, or with those of an earlier one.
    void next_edge(int shares) {
        firsts_.push_back(shares < 0 ? First{graph_.parameters, graph_.alphas} : firsts_.at(shares));
        next_ = firsts_.back();
    }

    int alpha() {
        graph_.alphas = std::max(graph_.alphas, next_.alpha + 1);
        return next_.alpha++;
    }

    Norm norm(int channels) {
        if (next_norm_ == norms_.size()) throw std::invalid_argument("too few batch norms described");
        const NormDescription& description = norms_[next_norm_++];
        Norm norm{description.eps, channels};
        if (description.affine) {
            norm.gamma = parameter();
            norm.beta = parameter();
        }
        if (description.batch) {
            norm.statistics = graph_.statistics;
            graph_.statistics += channels;
        } else {
            norm.running = graph_.running;
            graph_.running += 2;
        }
        return norm;
    }

    Stage stage(const StageDescription& description, int stride, int in_channels, int out_channels, bool last) {
        Stage stage;
        static_cast<StageDescription&>(stage) = description;
        stage.stride = stride;
        stage.in_channels = in_channels;
        stage.out_channels = out_channels;
        if (stage.kind == Stage::Kind::depthwise) {
            if (!supported(stage))
                throw std::invalid_argument("no depthwise kernel of size " + std::to_string(stage.kernel) +
                                            ", dilation " + std::to_string(stage.dilation));
            stage.depthwise = parameter();
            graph_.pad = std::max(graph_.pad, stage.dilation * (stage.kernel / 2));
        }
        stage.pointwise = parameter();
        if (stage.gathers() == 2) parameter();
        if (!last) stage.saved = graph_.saved_stages++;
        stage.norm = norm(out_channels);
        return stage;
    }

  private:
    struct First {
        int parameter, alpha;
    };

    int parameter() {
        graph_.parameters = std::max(graph_.parameters, next_.parameter + 1);
        return next_.parameter++;
    }

    static bool supported(const Stage& stage) {
        return std::any_of(std::begin(kDepthwiseShapes), std::end(kDepthwiseShapes), [&](const DepthwiseShape& shape) {
            return shape.kernel == stage.kernel && shape.dilation == stage.dilation;
        });
    }

    Graph& graph_;
    const std::vector<NormDescription>& norms_;
    std::size_t next_norm_ = 0;
    std::vector<First> firsts_;  // of every edge
    First next_{};
};

}  // namespace

Memory memory_mode(const std::string& name) {
    if (name == "fast") return Memory::fast;
    if (name == "lean") return Memory::lean;
    if (name == "none") return Memory::none;
    throw std::invalid_argument("memory must be fast, lean or none, got " + name);
}

bool Edge::has(Candidate::Pool pool) const {
    return std::any_of(candidates.begin(), candidates.end(), [=](const Candidate& c) { return c.pool == pool; });
}

bool Edge::is_plain_sum() const {
    return candidates.size() == 1 && candidates[0].identity && candidates[0].alpha < 0;
}

bool Edge::resizes() const {
    return std::any_of(candidates.begin(), candidates.end(),
                       [](const Candidate& c) { return !c.stages.empty() && c.stages[0].kind == Stage::Kind::resize; });
}

Graph::Graph(std::vector<int> channels_, int inputs_, const std::vector<EdgeDescription>& described,
             std::vector<int> outputs_, const std::vector<NormDescription>& norms)
    : channels(std::move(channels_)), inputs(inputs_), outputs(std::move(outputs_)) {
    Places places(*this, norms);
    for (const EdgeDescription& e : described) {
        const int owner = e.shares < 0 ? int(edges.size()) : edges.at(e.shares).owner;
        Edge edge{e.source, e.target, e.stride, {}, e.like, owner};
        places.next_edge(e.shares);
        const int before = channels.at(e.source), after = channels.at(e.target);
        for (const CandidateDescription& c : e.candidates) {
            Candidate candidate{c.pool, c.identity, e.searched ? places.alpha() : -1, {}, {}};
            if (c.pool != Candidate::Pool::none) candidate.pool_norm = places.norm(after);
            for (std::size_t s = 0; s < c.stages.size(); ++s)
                candidate.stages.push_back(places.stage(c.stages[s], s == 0 ? e.stride : 1, s == 0 ? before : after,
                                                        after, s + 1 == c.stages.size()));
            edge.candidates.push_back(std::move(candidate));
        }
        edges.push_back(std::move(edge));
    }
}

bool Graph::is_output(int state) const {
    return std::find(outputs.begin(), outputs.end(), state) != outputs.end();
}

bool Graph::is_read(int state) const {
    const std::vector<const Edge*> all = leaving(state);
    return all.empty() || std::any_of(all.begin(), all.end(), [](const Edge* edge) { return !edge->is_plain_sum(); });
}

std::vector<const Edge*> Graph::leaving(int state) const {
    std::vector<const Edge*> result;
    for (const Edge& edge : edges)
        if (edge.source == state) result.push_back(&edge);
    return result;
}

const Edge* Graph::leaving(int state, int stride, Candidate::Pool pool) const {
    for (const Edge& edge : edges)
        if (edge.source == state && edge.stride == stride && edge.has(pool)) return &edge;
    return nullptr;
}

std::vector<Size> Graph::sizes(const std::vector<Size>& given) const {
    std::vector<Size> result(channels.size());
    std::copy(given.begin(), given.end(), result.begin());
    for (const Edge& edge : edges) {
        const Size in = result[edge.like < 0 ? edge.source : edge.like];
        result[edge.target] = edge.stride == 2 ? Size{(in.h + 1) / 2, (in.w + 1) / 2} : in;
    }
    return result;
}

}  // namespace fastnas
