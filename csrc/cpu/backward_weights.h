// Weights as a backward reads them, and sums for their gradients, to which all edges of the same parameters add.
#pragma once

#include "backward.h"
#include "weights.h"

namespace fastnas {

template <class T>
struct StageBackWeights {
    T *pointwise, *depthwise;            // packed for the derivatives
    T *pointwise_grad, *depthwise_grad;  // the first thread's sums; null where no gradients are wanted
};

// Of all stages of an edge, in order.
template <class T>
class EdgeBackWeights {
  public:
    EdgeBackWeights(const Backward<T>& cell, const Edge& edge)
        : forward(cell, edge), scratch_([&](Arena& arena) { layout(cell, edge, arena); }) {
        const std::vector<Place> places = all_stages(edge);
        parallel_for(cell.call.threads, int(places.size()), [&](int i, int) {
            cell.pack_back(places[i].of(edge), stages_[i].pointwise, stages_[i].depthwise);
        });
        std::fill_n(sums_, sums_size_ * cell.call.threads, T(0));
    }

    const EdgeWeights<T> forward;
    const StageBackWeights<T>& operator[](std::size_t stage) const { return stages_[stage]; }
    // From the first thread's sums to those of another.
    std::ptrdiff_t to_thread(int number) const { return number * sums_size_; }

    void store_gradients(const Backward<T>& cell, const Edge& edge) const {
        const std::vector<Place> places = all_stages(edge);
        parallel_for(cell.call.threads, int(places.size()), [&](int i, int) {
            const auto& [pointwise, depthwise, pointwise_grad, depthwise_grad] = stages_[i];
            const Stage& stage = places[i].of(edge);
            add_up(pointwise_grad, cell.pointwise_grad_size(stage), sums_size_, cell.call.threads);
            add_up(depthwise_grad, cell.packed_depthwise_size(stage), sums_size_, cell.call.threads);
            cell.unpack_grads(stage, pointwise_grad, depthwise_grad);
        });
    }

  private:
    void layout(const Backward<T>& cell, const Edge& edge, Arena& arena) {
        stages_.clear();
        for (const Place& place : all_stages(edge)) {
            const Stage& stage = place.of(edge);
            stages_.push_back({arena.take<T>(cell.packed_back_size(stage)),
                               arena.take<T>(cell.packed_depthwise_size(stage)), nullptr, nullptr});
        }
        if (cell.wants_parameters()) layout_sums(cell, edge, arena);
    }

    // Each thread's sums of all gradients lie together.
    void layout_sums(const Backward<T>& cell, const Edge& edge, Arena& arena) {
        const auto layout_thread = [&](Arena& own) {
            const std::vector<Place> places = all_stages(edge);
            for (std::size_t i = 0; i < places.size(); ++i) {
                stages_[i].pointwise_grad = own.take<T>(cell.pointwise_grad_size(places[i].of(edge)));
                stages_[i].depthwise_grad = own.take<T>(cell.packed_depthwise_size(places[i].of(edge)));
            }
        };
        Arena offsets;
        layout_thread(offsets);
        sums_size_ = std::ptrdiff_t(offsets.used() / sizeof(T));
        sums_ = arena.take<T>(sums_size_ * cell.call.threads);
        Arena first(reinterpret_cast<char*>(sums_));
        layout_thread(first);
    }

    std::vector<StageBackWeights<T>> stages_;  // these three before scratch_, which fills them
    T* sums_ = nullptr;                        // by thread, one after the other
    std::ptrdiff_t sums_size_ = 0;             // of a thread
    Scratch scratch_;
};

}  // namespace fastnas
