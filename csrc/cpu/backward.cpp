// Backward of a cell: states in reverse order, edge by edge (edge_backward.h).
//
// When a state's turn as source comes, the gradients of all its targets are complete. What edges out of one source
// share (its pools, their gradients, and the planes that depthwise convolutions read) is computed once.
#include "backward.h"

#include "backward_weights.h"
#include "edge_backward.h"
#include "plain_backward.h"

namespace fastnas {

namespace {

template <class T>
class CellBackward : public Backward<T> {
    using Base = Backward<T>;
    using Base::blocks, Base::image_size, Base::plane_size, Base::state_size;
    using Base::call, Base::each_slab, Base::graph, Base::images, Base::k, Base::lanes, Base::sizes;
    using Base::gathered_grad, Base::gradient_sums, Base::grads, Base::pooled, Base::rectified, Base::threads, Base::to;
    using Base::grad, Base::source_image, Base::wants;

  public:
    CellBackward(const Graph& graph, const Call<T>& call, const Gradients<T>& gradients)
        : Base(graph, call, gradients), weights_(graph) {}

    void run() {
        const Scratch scratch([this](Arena& arena) { layout(arena); });
        load_gradients();
        clear_norm_gradients();
        for (int state = int(grads.size()) - 1; state >= 0; --state) {
            run_source(state);
            if (!graph.is_input(state)) sum_gradient(state);
        }
        for (int i = 0; i < int(to.inputs.size()); ++i)
            each_slab([&](const Slab& slab, int) { this->store_slab(grad(i, slab.image), i, slab, to.inputs[i], 0); });
        for (int a = 0; to.alpha && a < graph.alphas; ++a) to.alpha[a] = T(this->alpha_grad[a]);
    }

  private:
    void layout(Arena& arena) {
        const int states = int(graph.channels.size());
        grads.assign(states, nullptr);
        gradient_sums.assign(states, {});
        std::ptrdiff_t loaded = 0;
        for (int i = 0; i < states; ++i) {
            if (wants(i)) grads[i] = arena.take<T>(state_size(i));
            gradient_sums[i].layout(arena, images * this->slabs, blocks(graph.channels[i]), lanes);
            if (!this->saved_state(i) && graph.is_read(i)) loaded = std::max(loaded, state_size(i));
        }
        x_buffer_ = arena.take<T>(loaded);
        threads.clear();
        std::ptrdiff_t du = 0, pool_grad = 0, gathered = 0;
        for (const Edge& edge : graph.edges) {
            pool_grad = std::max(pool_grad, plane_size(edge.target));
            for (const Candidate& candidate : edge.candidates)
                for (const Stage& stage : candidate.stages) {
                    du = std::max(du, blocks(stage.out_channels) * this->band_size(edge));
                    if (stage.overlaps())
                        gathered = std::max(gathered, blocks(stage.in_channels) * this->padded_plane_size(edge.target));
                }
        }
        for (const ThreadScratch<T>& shared : layout_threads<T>(*this, arena)) {
            BackwardThread<T> thread{shared, int(threads.size()), arena.take<T>(du), arena.take<T>(pool_grad)};
            threads.push_back(thread);
        }
        gathered_grad = {std::vector<T*>(this->slabs > 1 ? images : threads.size()), gathered, {}};
        for (T*& planes : gathered_grad.planes) planes = arena.take<T>(gathered);
    }

    void load_gradients() {
        each_slab([this](const Slab& slab, int) {
            for (int state = 0; state < int(grads.size()); ++state) {
                const Rows rows = this->rows(state, slab);
                for (int b = 0; grads[state] && b < blocks(graph.channels[state]); ++b)
                    std::fill_n(grad(state, slab.image) + b * plane_size(state) + this->offset(state, rows),
                                this->pixels(state, rows) * lanes, T(0));
            }
            int first_channel = 0;
            for (int state : graph.outputs) {
                this->load_slab(to.out, first_channel, state, slab, grad(state, slab.image));
                first_channel += graph.channels[state];
            }
        });
    }

    // Every edge adds to the gradients of its norms' γ and β.
    void clear_norm_gradients() const {
        const auto clear = [this](const Norm& norm) {
            for (int place : {norm.gamma, norm.beta})
                if (T* gradient = to.parameter(place)) std::fill_n(gradient, norm.channels, T(0));
        };
        for (const Edge& edge : graph.edges)
            for (const Candidate& candidate : edge.candidates) {
                clear(candidate.pool_norm);
                for (const Stage& stage : candidate.stages) clear(stage.norm);
            }
    }

    // Σ g over the batch, which every norm on an edge into `state` needs.
    void sum_gradient(int state) {
        const Partial<T>& partial = gradient_sums[state];
        each_slab([&](const Slab& slab, int) {
            const Rows rows = this->rows(state, slab);
            partial.clear(slab.index);
            for (int b = 0; b < partial.blocks; ++b)
                k.sum(grad(state, slab.image) + b * plane_size(state) + this->offset(state, rows),
                      this->pixels(state, rows), partial.at(slab.index, b));
        });
        partial.add_up();
    }

    // Makes x the blocked state, if derivatives read it: saved, a slice of the cell's output, or an input.
    void load_source(int state) {
        this->x = this->saved_state(state);
        if (this->x || !graph.is_read(state)) return;
        T* buffer = x_buffer_;
        int first_channel = 0;
        for (int output : graph.outputs) {
            if (output == state) break;
            first_channel += graph.channels[output];
        }
        const bool input = graph.is_input(state);
        const Image<T>& from = input ? call.inputs[state] : call.out;
        each_slab([&](const Slab& slab, int) {
            this->load_slab(from, input ? 0 : first_channel, state, slab, buffer + slab.image * image_size(state));
        });
        this->x = buffer;
    }

    void run_source(int source) {
        const std::vector<const Edge*> edges = graph.leaving(source);
        if (edges.empty()) return;
        load_source(source);
        pooled = {};
        PlainBackward<T> plain(*this, source);
        const Scratch scratch([&](Arena& arena) {
            pooled.layout(*this, source, images, arena);
            rectified.layout(*this, source, images, arena);
            plain.layout(arena);
        });
        plain.set_norms();
        each_slab([&](const Slab& slab, int thread) {
            const T* image = source_image(source, slab.image);
            pooled.compute(*this, source, slab, image, false, threads[thread].pool);
            rectified.compute(*this, source, slab, image);
            plain.products(slab);
        });
        plain.coefficients();
        // A pass in any case: the order of images, and so of sums, does not depend on which gradients are wanted.
        each_slab([&](const Slab& slab, int thread) {
            if (wants(source)) plain.back(slab, threads[thread]);
        });
        for (const Edge* edge : edges) run_edge(*edge);
    }

    void run_edge(const Edge& edge) {
        if (all_stages(edge).empty()) return;
        weights_.take_turn(
            edge, [&] { return std::make_unique<EdgeBackWeights<T>>(*this, edge); },
            [&](const EdgeBackWeights<T>& weights) { EdgeBackward<T>(*this, edge, weights).run(); },
            [&](const EdgeBackWeights<T>& weights) {
                if (this->wants_parameters()) weights.store_gradients(*this, edge);
            });
    }

    SharedByEdges<EdgeBackWeights<T>> weights_;
    T* x_buffer_ = nullptr;  // where a source is loaded that is not saved
};

}  // namespace

template <class T>
void backward(const Graph& graph, const Call<T>& call, const Gradients<T>& gradients) {
    CellBackward<T>(graph, call, gradients).run();
}

template void backward(const Graph&, const Call<float>&, const Gradients<float>&);
template void backward(const Graph&, const Call<double>&, const Gradients<double>&);

}  // namespace fastnas
