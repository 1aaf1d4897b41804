// Backward of a cell: states in reverse order, edge by edge (edge_backward.h).
//
// When a state's turn as source comes, the gradients of all its targets are complete. What edges out of one source
// share (its pools, their gradients, and the planes that depthwise convolutions read) is computed once.
#include "backward.h"

#include <cstring>

#include "edge_backward.h"
#include "plain_backward.h"

namespace fastnas {

namespace {

template <class T>
class CellBackward : Backward<T> {
    using Base = Backward<T>;
    using Base::blocks, Base::image_size, Base::plane_size, Base::state_size;
    using Base::call, Base::each_image, Base::graph, Base::images, Base::k, Base::lanes, Base::sizes;
    using Base::grad, Base::source_image, Base::wants;
    using Base::gradient_sums, Base::grads, Base::pooled, Base::rectified, Base::threads, Base::to;

  public:
    using Base::Base;

    void run() {
        const Scratch scratch([this](Arena& arena) { layout(arena); });
        load_gradients();
        for (int state = int(grads.size()) - 1; state >= 0; --state) {
            run_source(state);
            if (!graph.is_input(state)) sum_gradient(state);
        }
        for (int i = 0; i < int(to.inputs.size()); ++i)
            each_image([&](int n, int) { this->store_image(grad(i, n), i, n, to.inputs[i], 0); });
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
            gradient_sums[i].layout(arena, images, blocks(graph.channels[i]), lanes);
            if (!this->saved_state(i)) loaded = std::max(loaded, state_size(i));
        }
        x_buffer_ = arena.take<T>(loaded);
        threads.clear();
        std::ptrdiff_t du = 0, dd = 0, pool_grad = 0;
        for (const Edge& edge : graph.edges) {
            pool_grad = std::max(pool_grad, plane_size(edge.target));
            for (const Candidate& candidate : edge.candidates)
                for (const Stage& stage : candidate.stages) {
                    du = std::max(du, blocks(stage.out_channels) * this->band_size(edge));
                    dd = std::max(dd, blocks(stage.in_channels) * (stage.kind == Stage::Kind::depthwise
                                                                       ? this->padded_plane_size(edge.target)
                                                                       : this->band_size(edge)));
                }
        }
        for (const ThreadScratch<T>& shared : layout_threads<T>(*this, arena)) {
            BackwardThread<T> thread{
                shared, int(threads.size()), arena.take<T>(du), arena.take<T>(dd), arena.take<T>(pool_grad), dd, {}};
            threads.push_back(thread);
        }
    }

    void load_gradients() {
        each_image([this](int n, int) {
            for (int state = 0; state < int(grads.size()); ++state)
                if (grads[state]) std::memset(grad(state, n), 0, image_size(state) * sizeof(T));
            int first_channel = 0;
            for (int state : graph.outputs) {
                this->load_image(to.out, first_channel, state, n, grad(state, n));
                first_channel += graph.channels[state];
            }
        });
    }

    // Σ g over the batch, which every norm on an edge into `state` needs.
    void sum_gradient(int state) {
        const Partial<T>& partial = gradient_sums[state];
        each_image([&](int n, int) {
            partial.clear(n);
            for (int b = 0; b < partial.blocks; ++b)
                k.sum(grad(state, n) + b * plane_size(state), sizes[state].pixels(), partial.at(n, b));
        });
        partial.add_up(images);
    }

    // Makes x the blocked state: saved, a slice of the cell's output, or an input.
    void load_source(int state) {
        this->x = this->saved_state(state);
        if (this->x) return;
        T* buffer = x_buffer_;
        int first_channel = 0;
        for (int output : graph.outputs) {
            if (output == state) break;
            first_channel += graph.channels[output];
        }
        const bool input = graph.is_input(state);
        const Image<T>& from = input ? call.inputs[state] : call.out;
        each_image([&](int n, int) {
            this->load_image(from, input ? 0 : first_channel, state, n, buffer + n * image_size(state));
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
        each_image([&](int n, int thread) {
            pooled.compute(*this, source, n, source_image(source, n), false, threads[thread].pool);
            rectified.compute(*this, source, n, source_image(source, n));
            plain.products(n);
        });
        plain.coefficients();
        // A pass in any case: the order of images, and so of sums, does not depend on which gradients are wanted.
        each_image([&](int n, int thread) {
            if (wants(source)) plain.back(n, threads[thread]);
        });
        for (const Edge* edge : edges) EdgeBackward<T>(*this, *edge).run();
    }

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
