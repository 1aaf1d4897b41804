// Forward of a cell: states in order, edge by edge.
//
// For each source its pools are computed once. Each stage of a candidate of an edge out of it is a pass over the
// images; between two passes the images' sums become the batch's statistics. The sum y += Σ α·o(x) over several
// candidates is a pass, too.
#include "passes.h"
#include "source.h"
#include "weights.h"

namespace fastnas {

namespace {

using Pool = Candidate::Pool;

constexpr std::size_t kAddedAtOnce = 4;  // candidates whose outputs wait until they are added up, at most

template <class T>
struct StageScratch {
    T* output;  // u, all images
    Partial<T> partial;
    NormState<T> norm;
};

template <class T>
class Forward : public Cell<T> {
    using Base = Cell<T>;
    using Base::call, Base::each_slab, Base::graph, Base::images, Base::k, Base::lanes, Base::sizes;
    using Base::image_size, Base::plane_size, Base::state_size;

  public:
    Forward(const Graph& graph, const Call<T>& call) : Base(graph, call), weights_(graph) {}

    void run() {
        const Scratch scratch([this](Arena& arena) { layout(arena); });
        started_.assign(states_.size(), false);
        for (int state = 0; state < int(states_.size()); ++state) {
            if (graph.is_input(state))
                each_slab([&](const Slab& slab, int) {
                    this->load_slab(call.inputs[state], 0, state, slab, image(state, slab.image));
                });
            run_source(state);
        }
        int first_channel = 0;
        for (int state : graph.outputs) {
            each_slab([&](const Slab& slab, int) {
                this->store_slab(image(state, slab.image), state, slab, call.out, first_channel);
            });
            first_channel += graph.channels[state];
        }
    }

  private:
    T* image(int state, int n) const { return states_[state] + n * image_size(state); }

    void layout(Arena& arena) {
        states_.assign(graph.channels.size(), nullptr);
        std::ptrdiff_t input = 0;
        for (int i = 0; i < graph.inputs; ++i) input = std::max(input, state_size(i));
        T* shared = arena.take<T>(input);  // inputs are loaded one after the other, when their turn as source comes
        for (int i = 0; i < int(states_.size()); ++i) {
            T* saved = this->saved_state(i);
            states_[i] = graph.is_input(i) ? shared : saved ? saved : arena.take<T>(state_size(i));
        }
        threads_ = layout_threads<T>(*this, arena);
    }

    void run_source(int source) {
        if (graph.leaving(source).empty()) return;
        pooled_ = {};
        const Scratch scratch([&](Arena& arena) {
            pooled_.layout(*this, source, images, arena);
            rectified_.layout(*this, source, images, arena);
        });
        each_slab([&](const Slab& slab, int thread) {
            pooled_.compute(*this, source, slab, image(source, slab.image), true, threads_[thread].pool);
            rectified_.compute(*this, source, slab, image(source, slab.image));
        });
        for (const Edge* edge : graph.leaving(source))
            weights_.take_turn(
                *edge, [&] { return std::make_unique<EdgeWeights<T>>(*this, *edge); },
                [&](const EdgeWeights<T>& weights) { run_edge(*edge, weights); }, [](const EdgeWeights<T>&) {});
    }

    void run_edge(const Edge& edge, const EdgeWeights<T>& weights) {
        const Scratch scratch([&](Arena& arena) { layout_edge(edge, arena); });
        const std::vector<Place> stages = all_stages(edge);
        set_plain_norms(edge);
        std::vector<int> waiting;  // candidates to be added to y
        const auto add = [&](bool plain) {
            each_slab([&](const Slab& slab, int) { add_terms(edge, waiting, plain, slab, started_[edge.target]); });
            started_[edge.target] = true;
            waiting.clear();
        };
        for (std::size_t i = 0; i < stages.size(); ++i) {
            const auto [c, s] = stages[i];
            if (waiting.size() == kAddedAtOnce) add(false);
            each_slab([&, c = c, s = s](const Slab& slab, int thread) {
                run_stage(edge, c, s, weights[i], slab, threads_[thread]);
            });
            stage_statistics(edge, edge.candidates[c], s, stages_[c][s]);
            if (s + 1 == int(stages_[c].size())) waiting.push_back(c);
        }
        add(true);
    }

    void layout_edge(const Edge& edge, Arena& arena) {
        const int padded = this->padded(graph.channels[edge.target]);
        const std::ptrdiff_t size = state_size(edge.target);
        stages_.assign(edge.candidates.size(), {});
        plain_norms_.assign(edge.candidates.size(), {});
        StateBuffers<T> inner_outputs, last_outputs;
        std::size_t chains = 0;
        for (std::size_t c = 0; c < edge.candidates.size(); ++c) {
            const std::vector<Stage>& stages = edge.candidates[c].stages;
            if (stages.empty()) plain_norms_[c].layout(arena, padded);
            for (const Stage& stage : stages) {
                StageScratch<T> scratch;
                T* saved = this->saved_stage(stage);
                const std::size_t after = &stages.back() - &stage;
                scratch.output = saved        ? saved
                                 : after == 0 ? last_outputs.at(chains++ % kAddedAtOnce, size, arena)
                                              : inner_outputs.at(after - 1, size, arena);
                scratch.partial.layout(arena, images * this->slabs, this->blocks(stage.out_channels), lanes);
                scratch.norm.layout(arena, padded);
                stages_[c].push_back(scratch);
            }
        }
    }

    // One stage of a candidate, for one slab.
    void run_stage(const Edge& edge, int c, int s, const StageWeights<T>& weights, const Slab& slab,
                   const ThreadScratch<T>& thread) {
        const Stage& stage = edge.candidates[c].stages[s];
        const StageScratch<T>& own = stages_[c][s];
        const std::ptrdiff_t at = slab.image * image_size(edge.target);
        const Rows all = this->rows(edge.target, slab);
        const T* planes = s == 0 ? rectified_.image(slab.image) : thread.planes;
        if (s > 0)
            this->pad_normed(edge, stage, all, stages_[c][s - 1].output + at, stages_[c][s - 1].norm, thread.planes);
        double moments[2 * kMostLanes];
        this->each_band(edge, all, [&](Rows rows) {
            const Blocks<T> d =
                this->band(edge, rows, stage.gathers() * this->blocks(stage.in_channels), thread.gathered);
            this->gather(edge, stage, image(edge.source, slab.image), planes, weights.depthwise, rows, d);
            this->multiply(edge, stage, rows, d, weights.pointwise, thread.product, own.output + at);
            const Blocks<T> u = this->whole(edge, rows, own.partial.blocks, own.output + at);
            const double seen = this->pixels(edge.target, {all.first, rows.first});
            const std::ptrdiff_t more = this->pixels(edge.target, rows);
            for (int b = 0; stage.norm.batch() && b < u.count; ++b) {
                k.moments(u[b], more, moments);
                own.partial.merge(slab.index, b, seen, double(more), moments);
            }
        });
    }

    void stage_statistics(const Edge& edge, const Candidate& candidate, std::size_t s, StageScratch<T>& own) {
        const Norm& norm = candidate.stages[s].norm;
        this->statistics(edge.target, norm, own.partial);
        this->norm_state(norm, s + 1 == candidate.stages.size() ? call.weight(candidate) : 1.0, own.norm);
    }

    // Of the candidates without stages.
    void set_plain_norms(const Edge& edge) {
        for (std::size_t c = 0; c < edge.candidates.size(); ++c) {
            const Candidate& candidate = edge.candidates[c];
            if (candidate.identity)
                plain_norms_[c].set_identity(call.weight(candidate), this->padded(graph.channels[edge.target]));
            if (candidate.pool == Pool::none) continue;
            this->statistics(edge.target, candidate.pool_norm, pooled_.of(edge.stride, candidate.pool).partial);
            this->norm_state(candidate.pool_norm, call.weight(candidate), plain_norms_[c]);
        }
    }

    // y = or += Σ α·o(x) over the given candidates and, with `plain`, those without stages, for one slab.
    void add_terms(const Edge& edge, const std::vector<int>& chains, bool plain, const Slab& slab, bool add) {
        const Rows rows = this->rows(edge.target, slab);
        const std::ptrdiff_t at = slab.image * image_size(edge.target) + this->offset(edge.target, rows);
        std::vector<Term<T>> terms;
        const auto term = [&](const T* u, const NormState<T>& norm) {
            terms.push_back({u + at, norm.mean, norm.scale, norm.shift});
        };
        for (int c : chains) term(stages_[c].back().output, stages_[c].back().norm);
        for (std::size_t c = 0; plain && c < edge.candidates.size(); ++c) {
            const Candidate& candidate = edge.candidates[c];
            if (candidate.identity) term(states_[edge.source], plain_norms_[c]);
            if (candidate.pool != Pool::none) term(pooled_.of(edge.stride, candidate.pool).values, plain_norms_[c]);
        }
        if (terms.empty() && add) return;
        for (int b = 0; b < this->blocks(graph.channels[edge.target]); ++b) {
            k.accumulate(terms.data(), int(terms.size()), this->pixels(edge.target, rows), add,
                         states_[edge.target] + at + b * plane_size(edge.target));
            for (Term<T>& t : terms)
                t = {t.x + plane_size(edge.target), t.mean + lanes, t.scale + lanes, t.shift + lanes};
        }
    }

    std::vector<T*> states_;  // blocked, all images
    std::vector<ThreadScratch<T>> threads_;
    SharedByEdges<EdgeWeights<T>> weights_;
    std::vector<bool> started_;  // states that an edge has been added to
    PooledSource<T> pooled_;     // of the current source
    RectifiedSource<T> rectified_;
    std::vector<std::vector<StageScratch<T>>> stages_;  // of the current edge, by candidate
    std::vector<NormState<T>> plain_norms_;             // of the current edge, by candidate
};

}  // namespace

template <class T>
void forward(const Graph& graph, const Call<T>& call) {
    if (call.memory == Memory::none && graph.statistics == 0 && Cell<T>(graph, call).slabs == 1)
        return inference(graph, call);
    Forward<T>(graph, call).run();
}

template void forward(const Graph&, const Call<float>&);
template void forward(const Graph&, const Call<double>&);

}  // namespace fastnas
