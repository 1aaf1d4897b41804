// What forward and backward of a cell share: the call's tensors, the sizes of its states, and the gather of a stage.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "graph.h"
#include "norm.h"
#include "packing.h"
#include "parallel.h"

namespace fastnas {

// A tensor of PyTorch's, (N, C, H, W) with strides in elements.
template <class T>
struct Image {
    T* data;
    std::ptrdiff_t shape[4], strides[4];
    Size size() const { return {int(shape[2]), int(shape[3])}; }
};

enum class Memory { none, lean, fast };

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

template <class T>
class Cell {
  public:
    Cell(const Graph& graph, const Call<T>& call);

    const Graph& graph;
    const Call<T>& call;
    const Kernels<T>& k;
    const int lanes, images;
    const std::vector<Size> sizes;  // of every state

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

    // The saved tensor: inner states, then the outputs of stages that are not last ("fast").
    std::ptrdiff_t saved_size() const;
    T* saved_state(int state) const;
    T* saved_stage(const Stage& stage) const;

    void load_image(const Image<T>& from, int first_channel, int state, int n, T* to) const;
    void store_image(const T* from, int state, int n, const Image<T>& to, int first_channel) const;

    Depthwise convolution(const Edge& edge, const Stage& stage) const;
    void norm_state(const Norm& norm, double alpha, NormState<T>& state) const;

    // Padded planes of ReLU(x), one after the other, of one image of a state.
    void pad_source(const Edge& edge, const T* x, T* planes) const;
    // d of a stage, for one image: from the padded planes of the source, from the source itself (1×1 stages), or, after
    // a norm, from the output z of the stage before. `plane` is one padded plane of scratch.
    void gather_source(const Edge& edge, const Stage& stage, const T* x, const T* planes, const T* weight, T* d) const;
    void gather_normed(const Edge& edge, const Stage& stage, const T* z, const NormState<T>& norm, const T* weight,
                       T* plane, T* d) const;
    // u = W·d for one image; with g also Σ g·(u - mean). `scratch` holds two images of the target for a reduce.
    void multiply(const Edge& edge, const Stage& stage, const T* d, const T* packed, T* scratch, T* u,
                  const T* g = nullptr, const T* mean = nullptr, double* sums = nullptr) const;

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
    std::vector<std::ptrdiff_t> state_offsets_, stage_offsets_;
    std::ptrdiff_t saved_size_ = 0;
};

// What a thread needs for one image at a time.
template <class T>
struct ThreadScratch {
    T* planes;    // padded planes of the source, or one of the target
    T* gathered;  // d of a stage
    T* product;   // the halves of a factorised reduce
};

template <class T>
std::vector<ThreadScratch<T>> layout_threads(const Cell<T>& cell, Arena& arena);

// The pools of a source that edges of one stride share.
template <class T>
struct Pooled {
    T* values = nullptr;  // (N, blocks, H, W, L) of the target's size
    Partial<T> partial;
};

template <class T>
struct PooledSource {
    Pooled<T> by_stride[2][2];
    Pooled<T>& of(int stride, Candidate::Pool pool) { return by_stride[stride - 1][pool == Candidate::Pool::avg]; }

    void layout(const Cell<T>& cell, int source, Arena& arena);
    // For one image; with `moments`, also what their norms need.
    void compute(const Cell<T>& cell, int source, int n, const T* x, bool moments);
};

int block(int element_size, int channels);

template <class T>
void forward(const Graph& graph, const Call<T>& call);

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
