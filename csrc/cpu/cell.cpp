#include "cell.h"

#include <numeric>

namespace fastnas {

namespace {

template <class T>
std::vector<Size> input_sizes(const Call<T>& call) {
    std::vector<Size> result;
    for (const Image<T>& image : call.inputs) result.push_back(image.size());
    return result;
}

// Parts of an image: one if images by themselves occupy the threads evenly or nearly so, else as few as do, as long as
// the smallest state is large enough.
int slabs_per_image(int images, int threads, const std::vector<Size>& sizes, int channels, int blocks) {
    if (images % threads == 0 || images >= 4 * threads) return 1;
    std::ptrdiff_t most = threads / std::gcd(images, threads);
    const int taps = 25;  // of a large depthwise convolution
    for (const Size& size : sizes) {
        const std::ptrdiff_t work = size.pixels() * blocks * (channels + taps);
        most = std::min({most, work / kSlabWork, std::ptrdiff_t(size.h / 2)});
    }
    return std::max(int(most), 1);
}

}  // namespace

template <class T>
Cell<T>::Cell(const Graph& graph_, const Call<T>& call_)
    : graph(graph_),
      call(call_),
      k(kernels<T>(graph.channels[graph.outputs[0]])),
      lanes(k.lanes),
      images(int(call.inputs[0].shape[0])),
      sizes(graph.sizes(input_sizes(call))),
      slabs(slabs_per_image(images, call.threads, sizes, graph.channels[graph.outputs[0]],
                            blocks(graph.channels[graph.outputs[0]]))),
      state_offsets_(graph.channels.size(), -1),
      stage_offsets_(graph.saved_stages, -1) {
    for (const Edge& edge : graph.edges)
        if (edge.resizes()) resamplings_.try_emplace(&edge, sizes[edge.source], sizes[edge.target]);
    if (call.memory == Memory::none) return;
    for (int state = graph.inputs; state < int(graph.channels.size()); ++state)
        if (!graph.is_output(state) && graph.is_read(state)) {
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
void Cell<T>::load_slab(const Image<T>& from, int first_channel, int state, const Slab& slab, T* to) const {
    const int channels = graph.channels[state];
    const Rows rows = this->rows(state, slab);
    const T* first = from.data + slab.image * from.strides[0] + rows.first * from.strides[2];
    for (int b = 0; b < blocks(channels); ++b)
        k.load(first + (first_channel + b * lanes) * from.strides[1], from.strides[1], from.strides[2], from.strides[3],
               std::min(lanes, channels - b * lanes), {rows.count(), sizes[state].w},
               to + b * plane_size(state) + offset(state, rows));
}

template <class T>
void Cell<T>::store_slab(const T* from, int state, const Slab& slab, const Image<T>& to, int first_channel) const {
    const int channels = graph.channels[state];
    const Rows rows = this->rows(state, slab);
    T* first = to.data + slab.image * to.strides[0] + rows.first * to.strides[2];
    for (int b = 0; b < blocks(channels); ++b)
        k.store(from + b * plane_size(state) + offset(state, rows), std::min(lanes, channels - b * lanes),
                {rows.count(), sizes[state].w}, first + (first_channel + b * lanes) * to.strides[1], to.strides[1],
                to.strides[2], to.strides[3]);
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
void Cell<T>::statistics(int state, const Norm& norm, const Partial<T>& partial) const {
    if (!norm.batch()) return;
    const auto pixels = [&](int i) { return double(this->pixels(state, rows(state, Slab{i / slabs, i % slabs, i}))); };
    T* mean = call.statistics + norm.statistics;
    batch_statistics(partial, count(state), pixels, norm.channels, mean, mean + graph.statistics);
}

template <class T>
void Cell<T>::pad_normed(const Edge& edge, const Stage& stage, Rows rows, const T* z, const NormState<T>& norm,
                         T* planes) const {
    const int reach = stage.dilation * (stage.kernel / 2), state = edge.target;
    const Size size = sizes[state];
    const Rows read{std::max(rows.first - reach, 0), std::min(rows.last + reach, size.h)};
    z += offset(state, read);
    planes += padded_offset(state, read);
    for (int b = 0; b < blocks(stage.in_channels); ++b) {
        const int c = b * lanes;
        k.norm_relu_pad(z + b * plane_size(state), norm.mean + c, norm.scale + c, norm.shift + c,
                        {read.count(), size.w}, graph.pad, planes + b * padded_plane_size(state));
    }
}

template <class T>
void Cell<T>::gather(const Edge& edge, const Stage& stage, const T* x, const T* planes, const T* weight, Rows rows,
                     const Blocks<T>& d) const {
    const int count = blocks(stage.in_channels), input = stage.stride == 1 ? edge.target : edge.source;
    const std::ptrdiff_t taps = std::ptrdiff_t(stage.kernel) * stage.kernel * lanes;
    for (int b = 0; b < count; ++b) switch (stage.kind) {
            case Stage::Kind::depthwise:
                k.depthwise(convolution(edge, stage), planes + b * padded_plane_size(input), weight + b * taps, rows,
                            d[b]);
                break;
            case Stage::Kind::pointwise:
                k.relu(x + b * plane_size(edge.source) + offset(edge.source, rows), pixels(edge.source, rows), d[b]);
                break;
            case Stage::Kind::reduce:
                for (int half = 0; half < 2; ++half)
                    k.relu_subsample(x + b * plane_size(edge.source), sizes[edge.source], half, rows,
                                     sizes[edge.target].w, d[half * count + b]);
                break;
            case Stage::Kind::resize:
                k.relu_resample(resampling(edge), x + b * plane_size(edge.source), rows, d[b]);
                break;
        }
}

template <class T>
void Cell<T>::multiply(const Edge& edge, const Stage& stage, Rows rows, const Blocks<T>& d, const T* packed, T* scratch,
                       T* u, const T* g, const T* mean, double* sums) const {
    const std::ptrdiff_t count = pixels(edge.target, rows), at = offset(edge.target, rows);
    const Blocks<T> out = whole(edge, rows, blocks(stage.out_channels), u);
    const Area area{1, count, 0};
    if (stage.gathers() == 1)
        return k.pointwise(d, 0, stage.in_channels, packed, area, out, g ? g + at : nullptr, mean, sums);
    const int in_blocks = blocks(stage.in_channels);
    Blocks<T> halves[2];
    for (int half = 0; half < 2; ++half) {
        halves[half] = band(edge, rows, out.count, scratch + half * out.count * count * lanes);
        k.pointwise({d[half * in_blocks], in_blocks, d.stride}, 0, stage.in_channels,
                    packed + half * packed_size(stage) / 2, area, halves[half], nullptr, nullptr, nullptr);
    }
    k.blend(halves[0], halves[1], stage.out_channels / 2, count, out);
    for (int b = 0; g && b < out.count; ++b)
        k.product(g + at + b * out.stride, out[b], mean + b * lanes, count, sums + b * 2 * lanes);
}

template <class T>
void Cell<T>::pack(const Stage& stage, T* pointwise, T* depthwise) const {
    const int rows = stage.out_channels / stage.gathers();
    for (int i = 0; i < stage.gathers(); ++i)
        pack_pointwise(k, call.parameters[stage.pointwise + i], rows, stage.in_channels, false, i * rows,
                       stage.out_channels, pointwise + i * packed_size(stage) / 2);
    if (stage.kind == Stage::Kind::depthwise)
        pack_depthwise(call.parameters[stage.depthwise], stage.in_channels, stage.kernel, stage.dilation, stage.stride,
                       false, lanes, depthwise);
}

template <class T>
std::vector<ThreadScratch<T>> layout_threads(const Cell<T>& cell, Arena& arena) {
    std::ptrdiff_t planes = 0, gathered = 0, product = 0, pool = 0;
    for (const Edge& edge : cell.graph.edges) {
        const std::ptrdiff_t band = cell.band_size(edge);
        const Size size = cell.sizes[edge.target];
        pool = std::max(pool, (size.pixels() + 6 * size.w) * cell.lanes);
        for (const Candidate& candidate : edge.candidates)
            for (const Stage& stage : candidate.stages) {
                if (candidate.stages.size() > 1)
                    planes = std::max(planes, cell.padded_plane_size(edge.target) * cell.blocks(stage.out_channels));
                gathered = std::max(gathered, stage.gathers() * cell.blocks(stage.in_channels) * band);
                if (stage.gathers() == 2) product = std::max(product, 2 * cell.blocks(stage.out_channels) * band);
            }
    }
    std::vector<ThreadScratch<T>> threads;
    for (int t = 0; t < cell.call.threads; ++t)
        threads.push_back(
            {arena.take<T>(planes), arena.take<T>(gathered), arena.take<T>(product), arena.take<T>(pool)});
    return threads;
}

template std::vector<ThreadScratch<float>> layout_threads(const Cell<float>&, Arena&);
template std::vector<ThreadScratch<double>> layout_threads(const Cell<double>&, Arena&);
template class Cell<float>;
template class Cell<double>;

}  // namespace fastnas
