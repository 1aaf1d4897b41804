// Forward of a cell: states in order, edge by edge.
//
// For each source its pools are computed once. For each edge out of it a pass over the images computes one stage of all
// candidates; between two passes the images' sums become the batch's statistics. The last pass adds Σ α·o(x) to the
// target.
#include <cstring>

#include "cell.h"

namespace fastnas {

namespace {

using Pool = Candidate::Pool;

template <class T>
struct StageScratch {
    T* output;                 // u, all images
    T *pointwise, *depthwise;  // weights, packed
    Partial<T> partial;
    NormState<T> norm;
};

template <class T>
class Forward : Cell<T> {
    using Base = Cell<T>;
    using Base::call, Base::graph, Base::images, Base::k, Base::lanes, Base::sizes;
    using Base::image_size, Base::plane_size, Base::state_size;

  public:
    using Base::Base;

    void run() {
        const Scratch scratch([this](Arena& arena) { layout(arena); });
        each_image([this](int n, int) {
            for (int state = graph.inputs; state < int(states_.size()); ++state)
                std::memset(image(state, n), 0, image_size(state) * sizeof(T));
        });
        for (int state = 0; state < int(states_.size()); ++state) {
            if (graph.is_input(state))
                each_image([&](int n, int) { this->load_image(call.inputs[state], 0, state, n, image(state, n)); });
            run_source(state);
        }
        int first_channel = 0;
        for (int state : graph.outputs) {
            each_image([&](int n, int) { this->store_image(image(state, n), state, n, call.out, first_channel); });
            first_channel += graph.channels[state];
        }
    }

  private:
    template <class Run>
    void each_image(Run run) const {
        parallel_for(call.threads, images, run);
    }

    T* image(int state, int n) const { return states_[state] + n * image_size(state); }

    void layout(Arena& arena) {
        states_.assign(graph.channels.size(), nullptr);
        std::ptrdiff_t input = 0;
        for (int i = 0; i < graph.inputs; ++i) input = std::max(input, state_size(i));
        T* shared = arena.take<T>(input);  // inputs are loaded one after the other, when their turn as source comes
        for (int i = 0; i < int(states_.size()); ++i) {
            T* saved = graph.is_input(i) ? shared : this->saved_state(i);
            states_[i] = saved ? saved : arena.take<T>(state_size(i));
        }
        threads_ = layout_threads<T>(*this, arena);
    }

    void run_source(int source) {
        pooled_ = {};
        const Scratch scratch([&](Arena& arena) { pooled_.layout(*this, source, arena); });
        each_image([&](int n, int) { pooled_.compute(*this, source, n, image(source, n), true); });
        for (const Edge* edge : graph.leaving(source)) run_edge(*edge);
    }

    void run_edge(const Edge& edge) {
        const Scratch scratch([&](Arena& arena) { layout_edge(edge, arena); });
        std::size_t depth = 0;
        for (const Candidate& candidate : edge.candidates) depth = std::max(depth, candidate.stages.size());
        parallel_for(call.threads, int(edge.candidates.size()), [&](int c, int) {
            for (std::size_t s = 0; s < stages_[c].size(); ++s)
                this->pack(edge.candidates[c].stages[s], stages_[c][s].pointwise, stages_[c][s].depthwise);
        });
        pool_statistics(edge);
        for (std::size_t s = 0; s < depth; ++s) {
            each_image([&](int n, int thread) { run_stages(edge, s, n, threads_[thread]); });
            for (std::size_t c = 0; c < edge.candidates.size(); ++c)
                if (s < stages_[c].size()) stage_statistics(edge, edge.candidates[c], s, stages_[c][s]);
        }
        each_image([&](int n, int) { add_candidates(edge, n); });
    }

    void layout_edge(const Edge& edge, Arena& arena) {
        const int padded = this->padded(graph.channels[edge.target]);
        stages_.assign(edge.candidates.size(), {});
        pool_norms_.assign(edge.candidates.size(), {});
        for (std::size_t c = 0; c < edge.candidates.size(); ++c) {
            if (edge.candidates[c].pool != Pool::none) pool_norms_[c].layout(arena, padded);
            for (const Stage& stage : edge.candidates[c].stages) {
                StageScratch<T> scratch;
                T* saved = this->saved_stage(stage);
                scratch.output = saved ? saved : arena.take<T>(state_size(edge.target));
                scratch.pointwise = arena.take<T>(this->packed_size(stage));
                scratch.depthwise = arena.take<T>(this->packed_depthwise_size(stage));
                scratch.partial.layout(arena, images, this->blocks(stage.out_channels), lanes);
                scratch.norm.layout(arena, padded);
                stages_[c].push_back(scratch);
            }
        }
    }

    // One stage of every candidate that has it, for one image.
    void run_stages(const Edge& edge, std::size_t s, int n, const ThreadScratch<T>& thread) {
        const T* x = image(edge.source, n);
        if (s == 0) this->pad_source(edge, x, thread.planes);
        for (std::size_t c = 0; c < edge.candidates.size(); ++c) {
            if (s >= stages_[c].size()) continue;
            const Stage& stage = edge.candidates[c].stages[s];
            const StageScratch<T>& own = stages_[c][s];
            const std::ptrdiff_t at = n * image_size(edge.target);
            if (s == 0)
                this->gather_source(edge, stage, x, thread.planes, own.depthwise, thread.gathered);
            else
                this->gather_normed(edge, stage, stages_[c][s - 1].output + at, stages_[c][s - 1].norm, own.depthwise,
                                    thread.planes, thread.gathered);
            this->multiply(edge, stage, thread.gathered, own.pointwise, thread.product, own.output + at);
            for (int b = 0; stage.norm.batch() && b < own.partial.blocks; ++b)
                k.moments(own.output + at + b * plane_size(edge.target), sizes[edge.target].pixels(),
                          own.partial.mean(n, b), own.partial.at(n, b));
        }
    }

    void statistics(const Edge& edge, const Norm& norm, const Partial<T>& partial) {
        if (norm.batch())
            batch_statistics(partial, images, double(sizes[edge.target].pixels()), norm.channels,
                             call.statistics + norm.statistics, call.statistics + norm.statistics + graph.statistics);
    }

    void stage_statistics(const Edge& edge, const Candidate& candidate, std::size_t s, StageScratch<T>& own) {
        const Norm& norm = candidate.stages[s].norm;
        statistics(edge, norm, own.partial);
        this->norm_state(norm, s + 1 == candidate.stages.size() ? call.weight(candidate) : 1.0, own.norm);
    }

    void pool_statistics(const Edge& edge) {
        for (std::size_t c = 0; c < edge.candidates.size(); ++c) {
            const Candidate& candidate = edge.candidates[c];
            if (candidate.pool == Pool::none) continue;
            statistics(edge, candidate.pool_norm, pooled_.of(edge.stride, candidate.pool).partial);
            this->norm_state(candidate.pool_norm, call.weight(candidate), pool_norms_[c]);
        }
    }

    // y += Σ α·o(x) for one image.
    void add_candidates(const Edge& edge, int n) {
        const std::ptrdiff_t pixels = sizes[edge.target].pixels(), at = n * image_size(edge.target);
        std::vector<Term<T>> terms;
        for (int b = 0; b < this->blocks(graph.channels[edge.target]); ++b) {
            const std::ptrdiff_t plane = b * plane_size(edge.target);
            T* y = image(edge.target, n) + plane;
            const auto add = [&](const T* u, const NormState<T>& norm) {
                terms.push_back(
                    {u + at + plane, norm.mean + b * lanes, norm.scale + b * lanes, norm.shift + b * lanes});
            };
            terms.clear();
            for (std::size_t c = 0; c < edge.candidates.size(); ++c) {
                const Candidate& candidate = edge.candidates[c];
                if (candidate.identity)
                    k.axpy(T(call.weight(candidate)), image(edge.source, n) + plane, pixels, y);
                else if (candidate.pool != Pool::none)
                    add(pooled_.of(edge.stride, candidate.pool).values, pool_norms_[c]);
                else if (!stages_[c].empty())
                    add(stages_[c].back().output, stages_[c].back().norm);
            }
            k.accumulate(terms.data(), int(terms.size()), pixels, y);
        }
    }

    std::vector<T*> states_;  // blocked, all images
    std::vector<ThreadScratch<T>> threads_;
    PooledSource<T> pooled_;                            // of the current source
    std::vector<std::vector<StageScratch<T>>> stages_;  // of the current edge, by candidate
    std::vector<NormState<T>> pool_norms_;              // of the current edge, by candidate
};

}  // namespace

template <class T>
void forward(const Graph& graph, const Call<T>& call) {
    Forward<T>(graph, call).run();
}

template void forward(const Graph&, const Call<float>&);
template void forward(const Graph&, const Call<double>&);

}  // namespace fastnas
