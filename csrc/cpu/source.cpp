#include "source.h"

namespace fastnas {

template <class T>
void PooledSource<T>::layout(const Cell<T>& cell, int source, int images, Arena& arena) {
    for (int stride : {1, 2})
        for (auto pool : {Candidate::Pool::max, Candidate::Pool::avg})
            if (const Edge* edge = cell.graph.leaving(source, stride, pool)) {
                Pooled<T>& pooled = of(stride, pool);
                pooled.values = arena.take<T>(images * cell.image_size(edge->target));
                pooled.partial.layout(arena, images * cell.slabs, cell.blocks(cell.graph.channels[source]), cell.lanes);
            }
}

template <class T>
void PooledSource<T>::compute(const Cell<T>& cell, int source, const Slab& slab, const T* x, bool moments, T* scratch) {
    for (int stride : {1, 2})
        for (auto pool : {Candidate::Pool::max, Candidate::Pool::avg})
            if (const Edge* edge = cell.graph.leaving(source, stride, pool)) {
                Pooled<T>& pooled = of(stride, pool);
                const Size in = cell.sizes[source], out = cell.sizes[edge->target];
                const Rows rows = cell.rows(edge->target, slab);
                for (int b = 0; b < pooled.partial.blocks; ++b) {
                    const T* from = x + b * cell.plane_size(source);
                    T* to =
                        pooled.values + slab.image * cell.image_size(edge->target) + b * cell.plane_size(edge->target);
                    if (pool == Candidate::Pool::max)
                        cell.k.max_pool(from, in, stride, out, rows, scratch, to);
                    else
                        cell.k.avg_pool(from, in, stride, out, rows, to);
                    if (moments)
                        cell.k.moments(to + cell.offset(edge->target, rows), cell.pixels(edge->target, rows),
                                       pooled.partial.at(slab.index, b));
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
void RectifiedSource<T>::compute(const Cell<T>& cell, int source, const Slab& slab, const T* x) const {
    const Rows rows = cell.rows(source, slab);
    const Size size{rows.count(), cell.sizes[source].w};
    const std::ptrdiff_t at = slab.image * image_size + cell.padded_offset(source, rows);
    for (int b = 0; planes && b < cell.blocks(cell.graph.channels[source]); ++b)
        cell.k.relu_pad(x + b * cell.plane_size(source) + cell.offset(source, rows), size, cell.graph.pad,
                        planes + at + b * cell.padded_plane_size(source));
}

template struct PooledSource<float>;
template struct PooledSource<double>;
template struct RectifiedSource<float>;
template struct RectifiedSource<double>;

}  // namespace fastnas
