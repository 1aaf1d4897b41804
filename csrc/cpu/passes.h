// The order of an edge's work. Batch norm makes every image wait for all others after most steps of a candidate, so
// steps are passes over the images. A candidate is finished before the next begins: what its steps hand on is read
// again while it is in the cache, and scratch memory does not grow with the number of candidates.
#pragma once

#include <vector>

#include "graph.h"

namespace fastnas {

// What a step waits for: the same slab's step before, that of all slabs of the image, or of the batch.
enum class Wait { slab, image, batch };

// Steps in order, each with what it waits for; one that need not wait shares the pass of the one before.
template <class Step>
std::vector<std::vector<Step>> passes(const std::vector<Step>& steps, int slabs) {
    std::vector<std::vector<Step>> result;
    for (const Step& step : steps) {
        const bool waits = step.wait == Wait::batch || (step.wait == Wait::image && slabs > 1);
        if (waits || result.empty()) result.emplace_back();
        result.back().push_back(step);
    }
    return result;
}

struct Place {
    int candidate, stage;
    const Stage& of(const Edge& edge) const { return edge.candidates[candidate].stages[stage]; }
};

// Every stage of every candidate.
inline std::vector<Place> all_stages(const Edge& edge) {
    std::vector<Place> result;
    for (int c = 0; c < int(edge.candidates.size()); ++c)
        for (int s = 0; s < int(edge.candidates[c].stages.size()); ++s) result.push_back({c, s});
    return result;
}

}  // namespace fastnas
