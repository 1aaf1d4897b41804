// The cells that the tests compute: each a kind of graph that Python describes (fastnas/ops/spec.py).
#pragma once

#include <string>
#include <vector>

#include "cpu/graph.h"

namespace fastnas::test {

struct Case {
    std::string name;
    Graph graph;
    std::vector<Size> sizes;  // of the inputs
    int images;
};

std::vector<Case> cases();

// All eight candidates of DARTS.
std::vector<CandidateDescription> darts_candidates(int stride);

}  // namespace fastnas::test
