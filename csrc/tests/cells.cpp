#include "cells.h"

namespace fastnas::test {

namespace {

using Pool = CandidateDescription::Pool;
using Kind = StageDescription::Kind;

const NormDescription kBatch{1e-5, false, true}, kAffine{1e-3, true, true}, kEval{1e-5, true, false};

CandidateDescription convolution(int kernel, int dilation, int stages) {
    return {Pool::none, false, std::vector<StageDescription>(stages, {Kind::depthwise, kernel, dilation})};
}

EdgeDescription mixed(int source, int target, int stride) {
    return {source, target, stride, true, darts_candidates(stride)};
}

EdgeDescription preprocess(int source, int target, bool reduce) {
    const Kind kind = reduce ? Kind::reduce : Kind::pointwise;
    return {source, target, reduce ? 2 : 1, false, {{Pool::none, false, {{kind, 1, 1}}}}};
}

Graph graph(std::vector<int> channels, int inputs, const std::vector<EdgeDescription>& edges, std::vector<int> outputs,
            const NormDescription& norm) {
    std::size_t norms = 0;
    for (const EdgeDescription& edge : edges)
        for (const CandidateDescription& c : edge.candidates) norms += c.stages.size() + (c.pool != Pool::none);
    return Graph(std::move(channels), inputs, edges, std::move(outputs), std::vector<NormDescription>(norms, norm));
}

Case edge(const std::string& name, int channels, Size size, int images, int stride, const NormDescription& norm) {
    return {name, graph({channels, channels}, 1, {mixed(0, 1, stride)}, {1}, norm), {size}, images};
}

// Two preprocessed inputs, four nodes. After a reduction, the first input is twice as large.
Case cell(const std::string& name, int channels, std::vector<Size> sizes, int images, bool reduction,
          bool after_reduction, const NormDescription& norm) {
    std::vector<EdgeDescription> edges{preprocess(0, 2, after_reduction), preprocess(1, 3, false)};
    for (int node = 4; node < 8; ++node)
        for (int source = 2; source < node; ++source)
            edges.push_back(mixed(source, node, reduction && source < 4 ? 2 : 1));
    std::vector<int> widths{6, 10};
    widths.resize(8, channels);
    return {name, graph(widths, 2, edges, {4, 5, 6, 7}, norm), std::move(sizes), images};
}

// Two ways of a trellis's cell, from states of twice and of half the size of the node's: both add up the edge out of
// the preprocessed first input and one of the same weights, and α weighs the results.
Case trellis(const std::string& name, int channels, Size size, int images, const NormDescription& norm) {
    const auto resize = [](int source, int target, int stride, int like) {
        return EdgeDescription{source, target, stride, false, {{Pool::none, false, {{Kind::resize, 1, 1}}}}, -1, like};
    };
    const auto weighed = [](int source, int target, int shares) {
        return EdgeDescription{
            source, target, 1, true, {{Pool::avg, false, {}}, {Pool::none, true, {}}, convolution(3, 1, 2)}, shares};
    };
    const auto plain = [](int source, int target) {
        return EdgeDescription{source, target, 1, false, {{Pool::none, true, {}}}};
    };
    const std::vector<EdgeDescription> edges{
        preprocess(0, 3, false), resize(1, 4, 2, -1), resize(2, 5, 1, 0), weighed(3, 6, -1), plain(6, 7),
        weighed(4, 7, -1),       plain(6, 8),         weighed(5, 8, 5),   weighed(7, 9, -1), weighed(8, 9, 8)};
    std::vector<int> widths{6, 10, 20};
    widths.resize(10, channels);
    const Size twice{2 * size.h - 1, 2 * size.w}, half{(size.h + 1) / 2, size.w / 2};
    return {name, graph(widths, 3, edges, {9}, norm), {size, twice, half}, images};
}

}  // namespace

std::vector<CandidateDescription> darts_candidates(int stride) {
    const CandidateDescription skip = stride == 1 ? CandidateDescription{Pool::none, true, {}}
                                                  : CandidateDescription{Pool::none, false, {{Kind::reduce, 1, 1}}};
    return {{Pool::none, false, {}}, {Pool::max, false, {}}, {Pool::avg, false, {}}, skip,
            convolution(3, 1, 2),    convolution(5, 1, 2),   convolution(3, 2, 1),   convolution(5, 2, 1)};
}

std::vector<Case> cases() {
    return {
        edge("edge", 5, {7, 6}, 2, 1, kBatch),
        edge("edge of one image", 17, {5, 9}, 1, 1, kAffine),
        edge("edge of one pixel", 3, {1, 1}, 3, 1, kBatch),
        edge("edge, stride 2", 6, {7, 6}, 3, 2, kBatch),
        edge("wide edge, stride 2", 34, {4, 3}, 2, 2, kAffine),
        edge("edge, eval", 5, {7, 6}, 2, 1, kEval),
        {"node", graph({6, 6, 6}, 2, {mixed(0, 2, 2), mixed(1, 2, 1)}, {2}, kAffine), {{9, 5}, {5, 3}}, 3},
        cell("cell", 5, {{5, 4}, {5, 4}}, 2, false, false, kBatch),
        cell("cell after a reduction", 6, {{9, 7}, {5, 4}}, 3, false, true, kAffine),
        cell("reduction cell", 6, {{5, 7}, {5, 7}}, 2, true, false, kBatch),
        edge("large image", 34, {29, 19}, 1, 1, kAffine),
        edge("large images, stride 2", 34, {37, 31}, 3, 2, kBatch),
        edge("large image, eval", 34, {29, 19}, 1, 1, kEval),
        {"large images, preprocessed",
         graph({6, 10, 8, 8, 8}, 2, {preprocess(0, 2, true), preprocess(1, 3, false), mixed(2, 4, 1), mixed(3, 4, 1)},
               {4}, kBatch),
         {{63, 51}, {32, 26}},
         1},
        trellis("trellis", 5, {7, 6}, 2, kAffine),
        trellis("trellis, eval", 5, {7, 6}, 2, kEval),
        trellis("trellis, large image", 34, {37, 30}, 1, kBatch),
        cell("cell, eval", 6, {{9, 7}, {5, 4}}, 2, false, true, kEval),
    };
}

}  // namespace fastnas::test
