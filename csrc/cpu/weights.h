// Weights of edges as the kernels read them. Edges that share parameters share these, too.
#pragma once

#include <memory>
#include <vector>

#include "cell.h"
#include "passes.h"

namespace fastnas {

// What edges of the same parameters have in common: made when the first of them has its turn, dropped after the last.
template <class Common>
class SharedByEdges {
  public:
    explicit SharedByEdges(const Graph& graph) : of_owner_(graph.edges.size()) {
        for (const Edge& edge : graph.edges) ++of_owner_[edge.owner].users;
    }

    // run(common) in an edge's turn, and finish(common) after the last one's.
    template <class Make, class Run, class Finish>
    void take_turn(const Edge& edge, Make make, Run run, Finish finish) {
        Entry& entry = of_owner_[edge.owner];
        if (!entry.common) entry.common = make();
        run(*entry.common);
        if (--entry.users > 0) return;
        finish(*entry.common);
        entry.common.reset();
    }

  private:
    struct Entry {
        std::unique_ptr<Common> common;
        int users = 0;
    };
    std::vector<Entry> of_owner_;
};

template <class T>
struct StageWeights {
    T *pointwise, *depthwise;
};

// Of all stages of an edge, in order.
template <class T>
class EdgeWeights {
  public:
    EdgeWeights(const Cell<T>& cell, const Edge& edge) : scratch_([&](Arena& arena) { layout(cell, edge, arena); }) {
        const std::vector<Place> places = all_stages(edge);
        parallel_for(cell.call.threads, int(places.size()),
                     [&](int i, int) { cell.pack(places[i].of(edge), stages_[i].pointwise, stages_[i].depthwise); });
    }

    const StageWeights<T>& operator[](std::size_t stage) const { return stages_[stage]; }

  private:
    void layout(const Cell<T>& cell, const Edge& edge, Arena& arena) {
        stages_.clear();
        for (const Place& place : all_stages(edge)) {
            const Stage& stage = place.of(edge);
            stages_.push_back(
                {arena.take<T>(cell.packed_size(stage)), arena.take<T>(cell.packed_depthwise_size(stage))});
        }
    }

    std::vector<StageWeights<T>> stages_;  // before scratch_, which fills it
    Scratch scratch_;
};

}  // namespace fastnas
