// The order of an edge's work. Batch norm makes every image wait for all others after each step of a candidate, so a
// step is a pass over the images. A candidate is finished before the next begins: what its steps hand on is read again
// while it is in the cache, and scratch memory does not grow with the number of candidates.
#pragma once

#include <vector>

#include "graph.h"

namespace fastnas {

struct Step {
    int chain, index;
};
using Pass = std::vector<Step>;

// Chains of the given lengths, one after the other; the first step of a chain shares the pass of the last step before.
inline std::vector<Pass> passes(const std::vector<int>& lengths) {
    std::vector<Pass> result;
    for (int chain = 0; chain < int(lengths.size()); ++chain)
        for (int index = 0; index < lengths[chain]; ++index) {
            if (index > 0 || result.empty()) result.emplace_back();
            result.back().push_back({chain, index});
        }
    return result;
}

// Every stage of every candidate: work on weights, which needs no order.
inline std::vector<Step> all_stages(const Edge& edge) {
    std::vector<Step> result;
    for (int c = 0; c < int(edge.candidates.size()); ++c)
        for (int s = 0; s < int(edge.candidates[c].stages.size()); ++s) result.push_back({c, s});
    return result;
}

}  // namespace fastnas
