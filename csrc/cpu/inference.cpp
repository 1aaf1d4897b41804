// Forward of a cell whose norms all use running statistics, with nothing to save, when images by themselves occupy the
// threads. No image waits for another, so each goes through the whole cell at once, in scratch of its thread. Batch
// norm is no pass of its own: the rectifier before the next stage, or the sum y += α·o(x), applies it to what the 1×1
// convolution has just left in the cache.
#include "source.h"

namespace fastnas {

namespace {

using Pool = Candidate::Pool;

// What is the same for all images: weights, packed, which edges may share, and norms; those of a last stage or of a
// candidate without stages with its α.
template <class T>
struct Constants {
    std::vector<T*> pointwise, depthwise;
    std::vector<NormState<T>> norms;
};

template <class T>
struct InferenceThread : ThreadScratch<T> {
    std::vector<T*> states;
    std::vector<bool> started;  // states that something has been added to
    T* outputs[2];              // of a stage and of the one before
};

template <class T>
class Inference : Cell<T> {
    using Base = Cell<T>;
    using Base::blocks, Base::image_size, Base::plane_size;
    using Base::call, Base::graph, Base::images, Base::k, Base::lanes, Base::sizes;
    using Thread = InferenceThread<T>;

  public:
    using Base::Base;

    void run() {
        const Scratch scratch([this](Arena& arena) { layout(arena); });
        parallel_for(call.threads, int(graph.edges.size()), [this](int e, int) {
            const Edge& edge = graph.edges[e];
            for (std::size_t c = 0; c < constants_[e].size(); ++c) {
                if (edge.owner == e) pack_weights(edge.candidates[c], constants_[e][c]);
                set_norms(edge.candidates[c], graph.channels[edge.target], constants_[e][c]);
            }
        });
        parallel_for(call.threads, images, [this](int n, int thread) { run_image(n, threads_[thread]); });
    }

  private:
    void layout(Arena& arena) {
        constants_.assign(graph.edges.size(), {});
        std::ptrdiff_t output = 0;
        for (std::size_t e = 0; e < graph.edges.size(); ++e) {
            const Edge& edge = graph.edges[e];
            output = std::max(output, image_size(edge.target));
            for (std::size_t c = 0; c < edge.candidates.size(); ++c)
                constants_[e].push_back(layout_constants(edge, c, arena));
        }
        threads_.clear();
        for (const ThreadScratch<T>& shared : layout_threads<T>(*this, arena)) {
            Thread thread{shared, {}, {}, {arena.take<T>(output), arena.take<T>(output)}};
            for (int state = 0; state < int(sizes.size()); ++state)
                thread.states.push_back(arena.take<T>(image_size(state)));
            threads_.push_back(thread);
        }
    }

    Constants<T> layout_constants(const Edge& edge, std::size_t c, Arena& arena) const {
        const std::vector<Stage>& stages = edge.candidates[c].stages;
        const bool shares = &edge != &graph.edges[edge.owner];
        Constants<T> constants = shares ? constants_[edge.owner][c] : Constants<T>{};
        constants.norms.assign(std::max<std::size_t>(stages.size(), 1), {});
        for (NormState<T>& norm : constants.norms) norm.layout(arena, this->padded(graph.channels[edge.target]));
        if (shares) return constants;
        for (const Stage& stage : stages) {
            constants.pointwise.push_back(arena.take<T>(this->packed_size(stage)));
            constants.depthwise.push_back(arena.take<T>(this->packed_depthwise_size(stage)));
        }
        return constants;
    }

    void pack_weights(const Candidate& candidate, const Constants<T>& constants) const {
        for (std::size_t s = 0; s < candidate.stages.size(); ++s)
            this->pack(candidate.stages[s], constants.pointwise[s], constants.depthwise[s]);
    }

    void set_norms(const Candidate& candidate, int channels, Constants<T>& constants) const {
        const double alpha = call.weight(candidate);
        if (candidate.identity) constants.norms[0].set_identity(alpha, this->padded(channels));
        if (candidate.pool != Pool::none) this->norm_state(candidate.pool_norm, alpha, constants.norms[0]);
        for (std::size_t s = 0; s < candidate.stages.size(); ++s)
            this->norm_state(candidate.stages[s].norm, s + 1 == candidate.stages.size() ? alpha : 1.0,
                             constants.norms[s]);
    }

    void run_image(int n, Thread& thread) const {
        thread.started.assign(sizes.size(), false);
        for (int state = 0; state < int(sizes.size()); ++state) {
            if (graph.is_input(state)) this->load_slab(call.inputs[state], 0, state, {n, 0, n}, thread.states[state]);
            run_source(state, thread);
        }
        int first_channel = 0;
        for (int state : graph.outputs) {
            this->store_slab(thread.states[state], state, {n, 0, n}, call.out, first_channel);
            first_channel += graph.channels[state];
        }
    }

    void run_source(int source, Thread& thread) const {
        PooledSource<T> pooled;
        RectifiedSource<T> rectified;
        const Scratch scratch([&](Arena& arena) {
            pooled.layout(*this, source, 1, arena);
            rectified.layout(*this, source, 1, arena);
        });
        const T* x = thread.states[source];
        pooled.compute(*this, source, {}, x, false, thread.pool);
        rectified.compute(*this, source, {}, x);
        for (std::size_t e = 0; e < graph.edges.size(); ++e) {
            const Edge& edge = graph.edges[e];
            for (std::size_t c = 0; edge.source == source && c < edge.candidates.size(); ++c)
                run_candidate(edge, edge.candidates[c], constants_[e][c], pooled, rectified, thread);
        }
    }

    void run_candidate(const Edge& edge, const Candidate& candidate, const Constants<T>& own, PooledSource<T>& pooled,
                       const RectifiedSource<T>& rectified, Thread& thread) const {
        const Rows all{0, sizes[edge.target].h};
        const bool add = thread.started[edge.target];
        const std::size_t stages = candidate.stages.size();
        for (std::size_t s = 0; s < stages; ++s) {
            const Stage& stage = candidate.stages[s];
            const T* planes = s == 0 ? rectified.image(0) : thread.planes;
            T* u = thread.outputs[s % 2];
            if (s > 0) this->pad_normed(edge, stage, all, thread.outputs[(s - 1) % 2], own.norms[s - 1], thread.planes);
            this->each_band(edge, all, [&](Rows rows) {
                const Blocks<T> d =
                    this->band(edge, rows, stage.gathers() * blocks(stage.in_channels), thread.gathered);
                this->gather(edge, stage, thread.states[edge.source], planes, own.depthwise[s], rows, d);
                this->multiply(edge, stage, rows, d, own.pointwise[s], thread.product, u);
                if (s + 1 == stages) add_rows(edge, rows, u, own.norms[s], add, thread);
            });
        }
        if (candidate.identity)
            add_rows(edge, all, thread.states[edge.source], own.norms[0], add, thread);
        else if (candidate.pool != Pool::none)
            add_rows(edge, all, pooled.of(edge.stride, candidate.pool).values, own.norms[0], add, thread);
        else if (stages == 0 && !add)
            std::fill_n(thread.states[edge.target], image_size(edge.target), T(0));
        thread.started[edge.target] = true;
    }

    // y = or += the normed rows of u.
    void add_rows(const Edge& edge, Rows rows, const T* u, const NormState<T>& norm, bool add, Thread& thread) const {
        const std::ptrdiff_t count = this->pixels(edge.target, rows);
        const Blocks<const T> from = this->whole(edge, rows, blocks(graph.channels[edge.target]), u);
        const Blocks<T> to = this->whole(edge, rows, from.count, thread.states[edge.target]);
        for (int b = 0; b < from.count; ++b) {
            const int c = b * lanes;
            const Term<T> term{from[b], norm.mean + c, norm.scale + c, norm.shift + c};
            k.accumulate(&term, 1, count, add, to[b]);
        }
    }

    std::vector<std::vector<Constants<T>>> constants_;  // by edge and candidate
    std::vector<Thread> threads_;
};

}  // namespace

template <class T>
void inference(const Graph& graph, const Call<T>& call) {
    Inference<T>(graph, call).run();
}

template void inference(const Graph&, const Call<float>&);
template void inference(const Graph&, const Call<double>&);

}  // namespace fastnas
