#include "source.h"

namespace fastnas {

template <class T>
void PooledSource<T>::layout(const Cell<T>& cell, int source, int images, Arena& arena) {
    for (int stride : {1, 2})
        for (auto pool : {Candidate::Pool::max, Candidate::Pool::avg})
            if (const Edge* edge = cell.graph.leaving(source, stride, pool)) {
                Pooled<T>& pooled = of(stride, pool);
                pooled.values = arena.take<T>(images * cell.image_size(edge->target));
                pooled.partial.layout(arena, images, cell.blocks(cell.graph.channels[source]), cell.lanes);
            }
}

template <class T>
void PooledSource<T>::compute(const Cell<T>& cell, int source, int n, const T* x, bool moments, T* scratch) {
    for (int stride : {1, 2})
        for (auto pool : {Candidate::Pool::max, Candidate::Pool::avg})
            if (const Edge* edge = cell.graph.leaving(source, stride, pool)) {
                Pooled<T>& pooled = of(stride, pool);
                const Size in = cell.sizes[source], out = cell.sizes[edge->target];
                for (int b = 0; b < pooled.partial.blocks; ++b) {
                    T* to = pooled.values + n * cell.image_size(edge->target) + b * cell.plane_size(edge->target);
                    if (pool == Candidate::Pool::max)
                        cell.k.max_pool(x + b * cell.plane_size(source), in, stride, out, scratch, to);
                    else
                        cell.k.avg_pool(x + b * cell.plane_size(source), in, stride, out, to);
                    if (moments) cell.k.moments(to, out.pixels(), pooled.partial.at(n, b));
                }
            }
}

template <class T>
void RectifiedSource<T>::layout(const Cell<T>& cell, int source, int images, Arena& arena) {
    bool read = false;
    for (const Edge* edge : cell.graph.leaving(source))
        for (const Candidate& candidate : edge->candidates)
            if (!candidate.stages.empty()) read |= candidate.stages[0].kind == Stage::Kind::depthwise;
    image_size = read ? cell.padded_plane_size(source) * cell.blocks(cell.graph.channels[source]) : 0;
    planes = read ? arena.take<T>(image_size * images) : nullptr;
}

template <class T>
void RectifiedSource<T>::compute(const Cell<T>& cell, int source, int n, const T* x) const {
    for (int b = 0; planes && b < cell.blocks(cell.graph.channels[source]); ++b)
        cell.k.relu_pad(x + b * cell.plane_size(source), cell.sizes[source], cell.graph.pad,
                        planes + n * image_size + b * cell.padded_plane_size(source));
}

template struct PooledSource<float>;
template struct PooledSource<double>;
template struct RectifiedSource<float>;
template struct RectifiedSource<double>;

}  // namespace fastnas
