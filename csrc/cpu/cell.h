// What forward and backward of a cell share: the call's tensors, the sizes of its states, and the gather of a stage.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "graph.h"
#include "norm.h"
#include "packing.h"
#include "parallel.h"
#include "resampling.h"

namespace fastnas {

// A tensor of PyTorch's, (N, C, H, W) with strides in elements.
template <class T>
struct Image {
    T* data;
    std::ptrdiff_t shape[4], strides[4];
    Size size() const { return {int(shape[2]), int(shape[3])}; }
};

// A thread's item of work: an image, or one of `Cell::slabs` parts of its rows where images alone do not fill the
// threads.
struct Slab {
    int image, part;
    int index;  // among those of all images
};

// A call of a cell.
template <class T>
struct Call {
    std::vector<Image<T>> inputs;
    const T* alpha;
    std::vector<const T*> parameters, running;
    Image<T> out;
    T* saved;
    T* statistics;
    Memory memory;
    int threads;

    const T* parameter(int place) const { return place < 0 ? nullptr : parameters[place]; }
    double weight(const Candidate& candidate) const {
        return candidate.alpha < 0 ? 1.0 : double(alpha[candidate.alpha]);
    }
};

constexpr int kBandPixels = 1024;  // pixels times blocks of a band
// Multiply-adds of a slab at least, in vectors, for one candidate: with less, waiting costs what a second thread saves.
constexpr std::ptrdiff_t kSlabWork = 16000;

template <class T>
class Cell {
  public:
    Cell(const Graph& graph, const Call<T>& call);

    const Graph& graph;
    const Call<T>& call;
    const Kernels<T>& k;
    const int lanes, images;
    const std::vector<Size> sizes;  // of every state
    const int slabs;                // of each image

    int blocks(int channels) const { return blocks_of(channels, lanes); }
    int padded(int channels) const { return blocks(channels) * lanes; }
    // Elements of one image of a blocked state, of one of its planes, and of a padded plane.
    std::ptrdiff_t image_size(int state) const { return plane_size(state) * blocks(graph.channels[state]); }
    std::ptrdiff_t plane_size(int state) const { return sizes[state].pixels() * lanes; }
    std::ptrdiff_t padded_plane_size(int state) const {
        return std::ptrdiff_t(sizes[state].h) * (sizes[state].w + 2 * graph.pad) * lanes;
    }
    std::ptrdiff_t state_size(int state) const { return image_size(state) * images; }
    double count(int state) const { return double(images) * sizes[state].pixels(); }
    // The slab's rows of a state.
    Rows rows(int state, const Slab& slab) const {
        const int height = sizes[state].h;
        return {height * slab.part / slabs, height * (slab.part + 1) / slabs};
    }
    std::ptrdiff_t pixels(int state, Rows rows) const { return std::ptrdiff_t(rows.count()) * sizes[state].w; }
    // Where these rows start in a plane of the state, and in a padded one.
    std::ptrdiff_t offset(int state, Rows rows) const { return std::ptrdiff_t(rows.first) * sizes[state].w * lanes; }
    std::ptrdiff_t padded_offset(int state, Rows rows) const {
        return std::ptrdiff_t(rows.first) * (sizes[state].w + 2 * graph.pad) * lanes;
    }

    // The saved tensor: inner states that a backward reads, then the outputs of stages that are not last ("fast").
    std::ptrdiff_t saved_size() const;
    T* saved_state(int state) const;
    T* saved_stage(const Stage& stage) const;

    // run(slab, thread), in the opposite order of the time before, to begin with images whose memory is still in the
    // cache.
    template <class Run>
    void each_slab(Run run) {
        const auto item = [&](int i, int thread) { run(Slab{i / slabs, i % slabs, i}, thread); };
        parallel_for(call.threads, images * slabs, item, backwards_ = !backwards_);
    }
    // A slab of a state, which is a part of the given image.
    void load_slab(const Image<T>& from, int first_channel, int state, const Slab& slab, T* to) const;
    void store_slab(const T* from, int state, const Slab& slab, const Image<T>& to, int first_channel) const;

    Depthwise convolution(const Edge& edge, const Stage& stage) const;
    Resampling<T> resampling(const Edge& edge) const { return resamplings_.at(&edge).view(); }
    void norm_state(const Norm& norm, double alpha, NormState<T>& state) const;
    // The batch's, of a norm on a state, where it uses them.
    void statistics(int state, const Norm& norm, const Partial<T>& partial) const;

    // Rows of an edge's target, so many at a time that what is computed from them stays in the second-level cache.
    int band_rows(const Edge& edge) const {
        const int widest = std::max(blocks(graph.channels[edge.source]), blocks(graph.channels[edge.target]));
        const Size size = sizes[edge.target];
        return std::clamp(kBandPixels / (size.w * widest), 1, size.h);
    }
    std::ptrdiff_t band_size(const Edge& edge) const {
        return std::ptrdiff_t(band_rows(edge)) * sizes[edge.target].w * lanes;
    }
    template <class Run>
    void each_band(const Edge& edge, Rows rows, Run run) const {
        const int step = band_rows(edge);
        for (int y = rows.first; y < rows.last; y += step) run(Rows{y, std::min(y + step, rows.last)});
    }
    // Blocks that hold nothing but these rows, in scratch; the same rows of whole planes.
    Blocks<T> band(const Edge& edge, Rows rows, int count, T* scratch) const {
        return {scratch, count, pixels(edge.target, rows) * lanes};
    }
    template <class Pointer>
    Blocks<std::remove_pointer_t<Pointer>> whole(const Edge& edge, Rows rows, int count, Pointer planes) const {
        return {planes + offset(edge.target, rows), count, plane_size(edge.target)};
    }

    // Padded planes of ReLU(normed z), for one image of the output z of a stage: what these rows of the next stage's d
    // read of them.
    void pad_normed(const Edge& edge, const Stage& stage, Rows rows, const T* z, const NormState<T>& norm,
                    T* planes) const;
    // Rows of d, all blocks and both halves of a reduce, for one image: a depthwise stage reads padded planes, the
    // others the source x.
    void gather(const Edge& edge, const Stage& stage, const T* x, const T* planes, const T* weight, Rows rows,
                const Blocks<T>& d) const;
    // The same rows of u = W·d; with g, which is like u, also Σ g·(u - mean). `scratch` is a band for each half of a
    // reduce.
    void multiply(const Edge& edge, const Stage& stage, Rows rows, const Blocks<T>& d, const T* packed, T* scratch,
                  T* u, const T* g = nullptr, const T* mean = nullptr, double* sums = nullptr) const;

    std::ptrdiff_t gathered_size(const Edge& edge, const Stage& stage) const {
        return stage.gathers() * plane_size(edge.target) * blocks(stage.in_channels);
    }
    std::size_t packed_size(const Stage& stage) const {
        return stage.gathers() * packed_pointwise_size(stage.in_channels, stage.out_channels, lanes);
    }
    std::size_t packed_depthwise_size(const Stage& stage) const {
        return std::size_t(stage.kernel) * stage.kernel * padded(stage.in_channels);
    }
    void pack(const Stage& stage, T* pointwise, T* depthwise) const;

  private:
    std::map<const Edge*, ResamplingTaps<T>> resamplings_;
    std::vector<std::ptrdiff_t> state_offsets_, stage_offsets_;
    std::ptrdiff_t saved_size_ = 0;
    bool backwards_ = true;
};

// Outputs of stages that are not saved, which the candidates of an edge take in turns.
template <class T>
struct StateBuffers {
    std::vector<T*> taken;
    std::vector<bool> exists;

    T* at(std::size_t i, std::ptrdiff_t size, Arena& arena) {
        if (i >= exists.size()) taken.resize(i + 1), exists.resize(i + 1);
        if (!exists[i]) taken[i] = arena.take<T>(size), exists[i] = true;
        return taken[i];
    }
};

// What a thread needs for one slab at a time.
template <class T>
struct ThreadScratch {
    T* planes;    // padded planes of a normed stage
    T* gathered;  // a band of d
    T* product;   // a band of the halves of a factorised reduce
    T* pool;      // for max_pool and its derivative
};

template <class T>
std::vector<ThreadScratch<T>> layout_threads(const Cell<T>& cell, Arena& arena);

int block(int element_size, int channels);

template <class T>
void forward(const Graph& graph, const Call<T>& call);

// The same where all norms use running statistics and nothing is saved.
template <class T>
void inference(const Graph& graph, const Call<T>& call);

// Where gradients go; an empty list or null is not wanted.
template <class T>
struct Gradients {
    Image<T> out;
    std::vector<Image<T>> inputs;
    T* alpha;
    std::vector<T*> parameters;
    T* parameter(int place) const { return place < 0 || parameters.empty() ? nullptr : parameters[place]; }
};

template <class T>
void backward(const Graph& graph, const Call<T>& call, const Gradients<T>& gradients);

}  // namespace fastnas
