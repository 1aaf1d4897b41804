#include "cell.h"

#include <stdexcept>

namespace fastnas {

namespace {

template <class T>
std::vector<Size> input_sizes(const Call<T>& call) {
    std::vector<Size> result;
    for (const Image<T>& image : call.inputs) result.push_back(image.size());
    return result;
}

}  // namespace

template <class T>
Cell<T>::Cell(const Graph& graph_, const Call<T>& call_)
    : graph(graph_),
      call(call_),
      k(kernels<T>()),
      lanes(k.lanes),
      images(int(call.inputs[0].shape[0])),
      sizes(graph.sizes(input_sizes(call))),
      state_offsets_(graph.channels.size(), -1),
      stage_offsets_(graph.saved_stages, -1) {
    if (call.memory == Memory::none) return;
    for (int state = graph.inputs; state < int(graph.channels.size()); ++state)
        if (!graph.is_output(state)) {
            state_offsets_[state] = saved_size_;
            saved_size_ += state_size(state);
        }
    if (call.memory == Memory::fast)
        for (const Edge& edge : graph.edges)
            for (const Candidate& candidate : edge.candidates)
                for (const Stage& stage : candidate.stages)
                    if (stage.saved >= 0) {
                        stage_offsets_[stage.saved] = saved_size_;
                        saved_size_ += state_size(edge.target);
                    }
}

template <class T>
std::ptrdiff_t Cell<T>::saved_size() const {
    return saved_size_;
}

template <class T>
T* Cell<T>::saved_state(int state) const {
    return state_offsets_[state] < 0 ? nullptr : call.saved + state_offsets_[state];
}

template <class T>
T* Cell<T>::saved_stage(const Stage& stage) const {
    return stage.saved < 0 || stage_offsets_[stage.saved] < 0 ? nullptr : call.saved + stage_offsets_[stage.saved];
}

template <class T>
void Cell<T>::load_image(const Image<T>& from, int first_channel, int state, int n, T* to) const {
    const int channels = graph.channels[state];
    for (int b = 0; b < blocks(channels); ++b)
        k.load(from.data + n * from.strides[0] + (first_channel + b * lanes) * from.strides[1], from.strides[1],
               from.strides[2], from.strides[3], std::min(lanes, channels - b * lanes), sizes[state],
               to + b * plane_size(state));
}

template <class T>
void Cell<T>::store_image(const T* from, int state, int n, const Image<T>& to, int first_channel) const {
    const int channels = graph.channels[state];
    for (int b = 0; b < blocks(channels); ++b)
        k.store(from + b * plane_size(state), std::min(lanes, channels - b * lanes), sizes[state],
                to.data + n * to.strides[0] + (first_channel + b * lanes) * to.strides[1], to.strides[1], to.strides[2],
                to.strides[3]);
}

template <class T>
Depthwise Cell<T>::convolution(const Edge& edge, const Stage& stage) const {
    const Size in = stage.stride == 1 ? sizes[edge.target] : sizes[edge.source];
    return {stage.kernel, stage.dilation, stage.stride, in, sizes[edge.target], graph.pad};
}

template <class T>
void Cell<T>::norm_state(const Norm& norm, double alpha, NormState<T>& state) const {
    const T* mean = norm.batch() ? call.statistics + norm.statistics : call.running[norm.running];
    const T* variance = norm.batch() ? mean + graph.statistics : call.running[norm.running + 1];
    state.set(norm, mean, variance, call.parameter(norm.gamma), call.parameter(norm.beta), alpha,
              padded(norm.channels));
}

template <class T>
void Cell<T>::pad_source(const Edge& edge, const T* x, T* planes) const {
    for (int b = 0; b < blocks(graph.channels[edge.source]); ++b)
        k.relu_pad(x + b * plane_size(edge.source), sizes[edge.source], graph.pad,
                   planes + b * padded_plane_size(edge.source));
}

template <class T>
void Cell<T>::gather_source(const Edge& edge, const Stage& stage, const T* x, const T* planes, const T* weight,
                            T* d) const {
    const int count = blocks(stage.in_channels);
    const Size out = sizes[edge.target];
    const int taps = stage.kernel * stage.kernel;
    for (int b = 0; b < count; ++b) {
        const T* plane = x + b * plane_size(edge.source);
        T* to = d + b * plane_size(edge.target);
        switch (stage.kind) {
            case Stage::Kind::depthwise:
                k.depthwise(convolution(edge, stage), planes + b * padded_plane_size(edge.source),
                            weight + std::ptrdiff_t(b) * taps * lanes, to);
                break;
            case Stage::Kind::pointwise:
                k.relu(plane, out.pixels(), to);
                break;
            case Stage::Kind::reduce:
                for (int half = 0; half < 2; ++half)
                    k.relu_subsample(plane, sizes[edge.source], half, out, to + half * count * plane_size(edge.target));
                break;
        }
    }
}

template <class T>
void Cell<T>::gather_normed(const Edge& edge, const Stage& stage, const T* z, const NormState<T>& norm, const T* weight,
                            T* plane, T* d) const {
    const int taps = stage.kernel * stage.kernel;
    for (int b = 0; b < blocks(stage.in_channels); ++b) {
        const int c = b * lanes;
        k.norm_relu_pad(z + b * plane_size(edge.target), norm.mean + c, norm.scale + c, norm.shift + c,
                        sizes[edge.target], graph.pad, plane);
        k.depthwise(convolution(edge, stage), plane, weight + std::ptrdiff_t(b) * taps * lanes,
                    d + b * plane_size(edge.target));
    }
}

template <class T>
void Cell<T>::multiply(const Edge& edge, const Stage& stage, const T* d, const T* packed, T* scratch, T* u, const T* g,
                       const T* mean, double* sums) const {
    const std::ptrdiff_t pixels = sizes[edge.target].pixels(), plane = plane_size(edge.target);
    const int out_blocks = blocks(stage.out_channels), in_blocks = blocks(stage.in_channels);
    if (stage.gathers() == 1) return k.pointwise(d, 0, stage.in_channels, packed, pixels, out_blocks, u, g, mean, sums);
    T* halves[2] = {scratch, scratch + out_blocks * plane};
    for (int half = 0; half < 2; ++half)
        k.pointwise(d + half * in_blocks * plane, 0, stage.in_channels, packed + half * packed_size(stage) / 2, pixels,
                    out_blocks, halves[half], nullptr, nullptr, nullptr);
    k.blend(halves[0], halves[1], stage.out_channels / 2, out_blocks, pixels, u);
    for (int b = 0; g && b < out_blocks; ++b)
        k.product(g + b * plane, u + b * plane, mean + b * lanes, pixels, sums + b * 2 * lanes);
}

template <class T>
void Cell<T>::pack(const Stage& stage, T* pointwise, T* depthwise) const {
    const int rows = stage.out_channels / stage.gathers();
    for (int i = 0; i < stage.gathers(); ++i)
        pack_pointwise(call.parameters[stage.pointwise + i], rows, stage.in_channels, false, i * rows,
                       stage.out_channels, lanes, pointwise + i * packed_size(stage) / 2);
    if (stage.kind == Stage::Kind::depthwise)
        pack_depthwise(call.parameters[stage.depthwise], stage.in_channels, stage.kernel, stage.dilation, stage.stride,
                       false, lanes, depthwise);
}

template <class T>
std::vector<ThreadScratch<T>> layout_threads(const Cell<T>& cell, Arena& arena) {
    std::ptrdiff_t planes = 0, gathered = 0, product = 0;
    for (const Edge& edge : cell.graph.edges)
        for (const Candidate& candidate : edge.candidates)
            for (const Stage& stage : candidate.stages) {
                const std::ptrdiff_t source =
                    cell.padded_plane_size(edge.source) * cell.blocks(cell.graph.channels[edge.source]);
                planes = std::max({planes, source, cell.padded_plane_size(edge.target)});
                gathered = std::max(gathered, cell.gathered_size(edge, stage));
                if (stage.gathers() == 2) product = std::max(product, 2 * cell.image_size(edge.target));
            }
    std::vector<ThreadScratch<T>> threads;
    for (int t = 0; t < cell.call.threads; ++t)
        threads.push_back({arena.take<T>(planes), arena.take<T>(gathered), arena.take<T>(product)});
    return threads;
}

template <class T>
void PooledSource<T>::layout(const Cell<T>& cell, int source, Arena& arena) {
    for (int stride : {1, 2})
        for (auto pool : {Candidate::Pool::max, Candidate::Pool::avg})
            if (const Edge* edge = cell.graph.leaving(source, stride, pool)) {
                Pooled<T>& pooled = of(stride, pool);
                pooled.values = arena.take<T>(cell.state_size(edge->target));
                pooled.partial.layout(arena, cell.images, cell.blocks(cell.graph.channels[source]), cell.lanes);
            }
}

template <class T>
void PooledSource<T>::compute(const Cell<T>& cell, int source, int n, const T* x, bool moments) {
    for (int stride : {1, 2})
        for (auto pool : {Candidate::Pool::max, Candidate::Pool::avg})
            if (const Edge* edge = cell.graph.leaving(source, stride, pool)) {
                Pooled<T>& pooled = of(stride, pool);
                const Size in = cell.sizes[source], out = cell.sizes[edge->target];
                for (int b = 0; b < pooled.partial.blocks; ++b) {
                    T* to = pooled.values + n * cell.image_size(edge->target) + b * cell.plane_size(edge->target);
                    const auto run = pool == Candidate::Pool::max ? cell.k.max_pool : cell.k.avg_pool;
                    run(x + b * cell.plane_size(source), in, stride, out, to);
                    if (moments) cell.k.moments(to, out.pixels(), pooled.partial.mean(n, b), pooled.partial.at(n, b));
                }
            }
}

template std::vector<ThreadScratch<float>> layout_threads(const Cell<float>&, Arena&);
template std::vector<ThreadScratch<double>> layout_threads(const Cell<double>&, Arena&);
template struct PooledSource<float>;
template struct PooledSource<double>;
template class Cell<float>;
template class Cell<double>;

}  // namespace fastnas
