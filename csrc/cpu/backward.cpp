// Backward of a cell: states in reverse order, edge by edge.
//
// When a state's turn as source comes, the gradients of all its targets are complete. For each edge a first pass over
// the images computes again what forward did not save and the sums that batch norm's derivative needs; each further
// pass goes back through one stage of all candidates. What edges out of one source share (its pools and their
// gradients) is computed once.
#include <cstring>

#include "cell.h"

namespace fastnas {

namespace {

using Pool = Candidate::Pool;

template <class T>
struct StageScratch {
    T* output;    // u, all images
    T* gathered;  // d, all images; only of a last stage
    T* grad;      // gradient with respect to the normed output, all images; only of a stage before the last
    T *pointwise, *depthwise;            // weights, packed for forward
    T *pointwise_back, *depthwise_back;  // and for backward
    T *pointwise_grad, *depthwise_grad;  // sums of the weights' gradients, `Edge scratch`.threads copies
    Partial<T> partial;
    NormState<T> norm;
    NormGrad<T> norm_grad;
};

// A candidate without stages.
template <class T>
struct PlainScratch {
    Partial<T> partial;
    NormState<T> norm;
    NormGrad<T> norm_grad;
};

template <class T>
struct BackwardThread : ThreadScratch<T> {
    T* du;      // gradient of a stage's 1×1 convolution
    T* normed;  // padded plane of the stage before
    T* plane;   // padded plane of the gradient of d
};

template <class T>
class Backward : Cell<T> {
    using Base = Cell<T>;
    using Base::blocks, Base::image_size, Base::plane_size, Base::state_size;
    using Base::call, Base::graph, Base::images, Base::k, Base::lanes, Base::sizes;

  public:
    Backward(const Graph& graph, const Call<T>& call, const Gradients<T>& gradients)
        : Base(graph, call), to_(gradients), alpha_grad_(graph.alphas, 0.0) {}

    void run() {
        const Scratch scratch([this](Arena& arena) { layout(arena); });
        load_gradients();
        for (int state = int(grads_.size()) - 1; state >= 0; --state) {
            run_source(state);
            if (!graph.is_input(state)) sum_gradient(state);
        }
        for (int i = 0; i < int(to_.inputs.size()); ++i)
            each_image([&](int n, int) { this->store_image(grad(i, n), i, n, to_.inputs[i], 0); });
        for (int a = 0; to_.alpha && a < graph.alphas; ++a) to_.alpha[a] = T(alpha_grad_[a]);
    }

  private:
    template <class Run>
    void each_image(Run run) const {
        parallel_for(call.threads, images, run);
    }

    bool wants(int state) const { return !graph.is_input(state) || !to_.inputs.empty(); }
    bool wants_parameters() const { return !to_.parameters.empty(); }
    T* grad(int state, int n) const { return grads_[state] + n * image_size(state); }
    const T* source_image(int state, int n) const { return x_ + n * image_size(state); }

    void layout(Arena& arena) {
        const int states = int(graph.channels.size());
        grads_.assign(states, nullptr);
        gradient_sums_.assign(states, {});
        std::ptrdiff_t loaded = 0;
        for (int i = 0; i < states; ++i) {
            if (wants(i)) grads_[i] = arena.take<T>(state_size(i));
            gradient_sums_[i].layout(arena, images, blocks(graph.channels[i]), lanes);
            if (!this->saved_state(i)) loaded = std::max(loaded, state_size(i));
        }
        x_buffer_ = arena.take<T>(loaded);
        threads_.clear();
        std::ptrdiff_t image = 0, plane = 0;
        for (const Edge& edge : graph.edges) {
            image = std::max(image, image_size(edge.target));
            plane = std::max(plane, this->padded_plane_size(edge.target));
        }
        for (const ThreadScratch<T>& shared : layout_threads<T>(*this, arena)) {
            BackwardThread<T> thread;
            static_cast<ThreadScratch<T>&>(thread) = shared;
            thread.du = arena.take<T>(image);
            thread.normed = arena.take<T>(plane);
            thread.plane = arena.take<T>(plane);
            threads_.push_back(thread);
        }
    }

    void load_gradients() {
        each_image([this](int n, int) {
            for (int state = 0; state < int(grads_.size()); ++state)
                if (grads_[state]) std::memset(grad(state, n), 0, image_size(state) * sizeof(T));
            int first_channel = 0;
            for (int state : graph.outputs) {
                this->load_image(to_.out, first_channel, state, n, grad(state, n));
                first_channel += graph.channels[state];
            }
        });
    }

    // Σ g over the batch, which every norm on an edge into `state` needs.
    void sum_gradient(int state) {
        const Partial<T>& partial = gradient_sums_[state];
        each_image([&](int n, int) {
            partial.clear(n);
            for (int b = 0; b < partial.blocks; ++b)
                k.sum(grad(state, n) + b * plane_size(state), sizes[state].pixels(), partial.at(n, b));
        });
    }

    double total(const Partial<T>& partial, int channel, bool second = false) const {
        double sum = 0;
        for (int n = 0; n < images; ++n) sum += second ? partial.second(n, channel) : partial.first(n, channel);
        return sum;
    }

    // Makes x_ the blocked state: saved, a slice of the cell's output, or an input.
    void load_source(int state) {
        x_ = this->saved_state(state);
        if (x_) return;
        T* buffer = x_buffer_;
        int first_channel = 0;
        for (int output : graph.outputs) {
            if (output == state) break;
            first_channel += graph.channels[output];
        }
        const bool input = graph.is_input(state);
        const Image<T>& from = input ? call.inputs[state] : call.out;
        each_image([&](int n, int) {
            this->load_image(from, input ? 0 : first_channel, state, n, buffer + n * image_size(state));
        });
        x_ = buffer;
    }

    void run_source(int source) {
        const std::vector<const Edge*> edges = graph.leaving(source);
        if (edges.empty()) return;
        load_source(source);
        pooled_ = {};
        pooled_grads_ = {};
        const Scratch scratch([&](Arena& arena) {
            pooled_.layout(*this, source, arena);
            pooled_grads_.layout(*this, source, arena);
        });
        each_image([&](int n, int) {
            pooled_.compute(*this, source, n, source_image(source, n), false);
            each_pool(source, [&](const Edge& edge, Pool pool) {
                std::memset(pooled_grads_.of(edge.stride, pool).values + n * image_size(edge.target), 0,
                            image_size(edge.target) * sizeof(T));
            });
        });
        for (const Edge* edge : edges) run_edge(*edge);
        if (wants(source)) each_image([&](int n, int thread) { pool_gradients(source, n, threads_[thread]); });
    }

    template <class Visit>
    void each_pool(int source, Visit visit) const {
        for (int stride : {1, 2})
            for (Pool pool : {Pool::max, Pool::avg})
                if (const Edge* edge = graph.leaving(source, stride, pool)) visit(*edge, pool);
    }

    void pool_gradients(int source, int n, const BackwardThread<T>& thread) {
        each_pool(source, [&](const Edge& edge, Pool pool) {
            const T* g = pooled_grads_.of(edge.stride, pool).values + n * image_size(edge.target);
            for (int b = 0; b < blocks(graph.channels[source]); ++b) {
                const T* g_plane = g + b * plane_size(edge.target);
                const T* x = source_image(source, n) + b * plane_size(source);
                T* to = grad(source, n) + b * plane_size(source);
                if (pool == Pool::max)
                    k.max_pool_grad(g_plane, x, sizes[source], edge.stride, sizes[edge.target], thread.plane, to);
                else
                    k.avg_pool_grad(g_plane, sizes[source], edge.stride, sizes[edge.target], thread.plane, to);
            }
        });
    }

    void run_edge(const Edge& edge) {
        const Scratch scratch([&](Arena& arena) { layout_edge(edge, arena); });
        const int candidates = int(edge.candidates.size());
        parallel_for(call.threads, candidates, [&](int c, int) { prepare(edge.candidates[c], c); });
        each_image([&](int n, int thread) { recompute(edge, n, threads_[thread]); });
        std::size_t depth = 1;
        for (int c = 0; c < candidates; ++c) {
            depth = std::max(depth, stages_[c].size());
            last_coefficients(edge, edge.candidates[c], c);
        }
        for (std::size_t i = 0; i < depth; ++i) {
            each_image([&](int n, int thread) { go_back(edge, i, n, thread); });
            for (int c = 0; c < candidates; ++c)
                if (i + 1 < stages_[c].size()) coefficients(edge, edge.candidates[c], stages_[c].size() - 2 - i, c);
        }
        if (wants_parameters())
            parallel_for(call.threads, candidates, [&](int c, int) { store_weight_gradients(edge.candidates[c], c); });
    }

    void layout_edge(const Edge& edge, Arena& arena) {
        const int padded = this->padded(graph.channels[edge.target]);
        const auto norm = [&](auto& scratch) {
            scratch.partial.layout(arena, images, padded / lanes, lanes);
            scratch.norm.layout(arena, padded);
            scratch.norm_grad.layout(arena, padded);
        };
        stages_.assign(edge.candidates.size(), {});
        plain_.assign(edge.candidates.size(), {});
        for (std::size_t c = 0; c < edge.candidates.size(); ++c) {
            const Candidate& candidate = edge.candidates[c];
            if (candidate.pool != Pool::none || candidate.identity) norm(plain_[c]);
            for (const Stage& stage : candidate.stages) {
                StageScratch<T> scratch{};
                const bool last = &stage == &candidate.stages.back();
                T* saved = this->saved_stage(stage);
                scratch.output = saved ? saved : arena.take<T>(state_size(edge.target));
                if (last) scratch.gathered = arena.take<T>(images * this->gathered_size(edge, stage));
                if (!last) scratch.grad = arena.take<T>(state_size(edge.target));
                for (T** p : {&scratch.pointwise, &scratch.pointwise_back})
                    *p = arena.take<T>(p == &scratch.pointwise ? this->packed_size(stage) : packed_back_size(stage));
                for (T** p : {&scratch.depthwise, &scratch.depthwise_back})
                    *p = arena.take<T>(this->packed_depthwise_size(stage));
                norm(scratch);
                stages_[c].push_back(scratch);
            }
        }
        // Each thread's sums of all weight gradients lie together.
        sums_ = nullptr;
        sums_stride_ = 0;
        if (!wants_parameters()) return;
        Arena offsets;
        for (const Candidate& candidate : edge.candidates)
            for (const Stage& stage : candidate.stages) {
                offsets.take<T>(pointwise_grad_size(stage));
                offsets.take<T>(this->packed_depthwise_size(stage));
            }
        sums_stride_ = offsets.used() / sizeof(T);
        sums_ = arena.take<T>(sums_stride_ * call.threads);
        Arena own(reinterpret_cast<char*>(sums_));
        for (std::size_t c = 0; sums_ && c < edge.candidates.size(); ++c)
            for (std::size_t s = 0; s < stages_[c].size(); ++s) {
                stages_[c][s].pointwise_grad = own.take<T>(pointwise_grad_size(edge.candidates[c].stages[s]));
                stages_[c][s].depthwise_grad = own.take<T>(this->packed_depthwise_size(edge.candidates[c].stages[s]));
            }
    }

    std::size_t packed_back_size(const Stage& stage) const {
        return stage.gathers() * packed_pointwise_size(stage.out_channels / stage.gathers(), stage.in_channels, lanes);
    }
    std::size_t pointwise_grad_size(const Stage& stage) const {
        return std::size_t(stage.gathers()) * this->padded(stage.in_channels) * this->padded(stage.out_channels);
    }

    // Packs a candidate's weights and sets its norms.
    void prepare(const Candidate& candidate, int c) {
        if (candidate.pool != Pool::none) this->norm_state(candidate.pool_norm, 1, plain_[c].norm);
        if (candidate.identity) std::memset(plain_[c].norm.mean, 0, plain_[c].partial.blocks * lanes * sizeof(T));
        for (std::size_t s = 0; s < stages_[c].size(); ++s) {
            const Stage& stage = candidate.stages[s];
            StageScratch<T>& own = stages_[c][s];
            this->pack(stage, own.pointwise, own.depthwise);
            const int rows = stage.out_channels / stage.gathers();
            for (int i = 0; i < stage.gathers(); ++i)
                pack_pointwise(call.parameters[stage.pointwise + i], stage.in_channels, rows, true, 0,
                               stage.in_channels, lanes, own.pointwise_back + i * packed_back_size(stage) / 2);
            if (stage.kind == Stage::Kind::depthwise)
                pack_depthwise(call.parameters[stage.depthwise], stage.in_channels, stage.kernel, stage.dilation,
                               stage.stride, true, lanes, own.depthwise_back);
            this->norm_state(stage.norm, 1, own.norm);
            for (int t = 0; sums_ && t < call.threads; ++t) {
                std::memset(own.pointwise_grad + t * sums_stride_, 0, pointwise_grad_size(stage) * sizeof(T));
                std::memset(own.depthwise_grad + t * sums_stride_, 0, this->packed_depthwise_size(stage) * sizeof(T));
            }
        }
    }

    // Outputs of stages that were not saved, and Σ g·(u - mean) of every candidate, for one image.
    void recompute(const Edge& edge, int n, const BackwardThread<T>& thread) {
        const T* x = source_image(edge.source, n);
        const T* g = grad(edge.target, n);
        const std::ptrdiff_t at = n * image_size(edge.target);
        this->pad_source(edge, x, thread.planes);
        for (std::size_t c = 0; c < edge.candidates.size(); ++c) {
            const Candidate& candidate = edge.candidates[c];
            if (candidate.pool != Pool::none)
                products(edge, g, pooled_.of(edge.stride, candidate.pool).values + at, n, plain_[c]);
            if (candidate.identity && to_.alpha) products(edge, g, x, n, plain_[c]);
            for (std::size_t s = 0; s < stages_[c].size(); ++s) {
                const Stage& stage = candidate.stages[s];
                const StageScratch<T>& own = stages_[c][s];
                const bool last = s + 1 == stages_[c].size();
                if (!last && this->saved_stage(stage)) continue;
                T* d = last ? own.gathered + n * this->gathered_size(edge, stage) : thread.gathered;
                gather(edge, c, s, n, thread, d);
                own.partial.clear(n);
                this->multiply(edge, stage, d, own.pointwise, thread.product, own.output + at, last ? g : nullptr,
                               own.norm.mean, own.partial.at(n));
            }
        }
    }

    void products(const Edge& edge, const T* g, const T* x, int n, const PlainScratch<T>& own) {
        own.partial.clear(n);
        for (int b = 0; b < own.partial.blocks; ++b)
            k.product(g + b * plane_size(edge.target), x + b * plane_size(edge.target), own.norm.mean + b * lanes,
                      sizes[edge.target].pixels(), own.partial.at(n, b));
    }

    void gather(const Edge& edge, std::size_t c, std::size_t s, int n, const BackwardThread<T>& thread, T* d) {
        const Stage& stage = edge.candidates[c].stages[s];
        const T* weight = stages_[c][s].depthwise;
        if (s == 0) return this->gather_source(edge, stage, source_image(edge.source, n), thread.planes, weight, d);
        const StageScratch<T>& before = stages_[c][s - 1];
        this->gather_normed(edge, stage, before.output + n * image_size(edge.target), before.norm, weight,
                            thread.normed, d);
    }

    // Coefficients of a candidate's last norm, and its ∂α.
    void last_coefficients(const Edge& edge, const Candidate& candidate, int c) {
        const Partial<T>& sums = gradient_sums_[edge.target];
        const auto g_sum = [&](int i) { return total(sums, i); };
        double alpha_grad = 0;
        if (candidate.identity && to_.alpha)
            for (int i = 0; i < graph.channels[edge.target]; ++i) alpha_grad += total(plain_[c].partial, i);
        if (candidate.pool != Pool::none)
            alpha_grad = set(edge, candidate.pool_norm, plain_[c], call.weight(candidate), g_sum,
                             [&](int i) { return total(plain_[c].partial, i); });
        if (!stages_[c].empty())
            alpha_grad = set(edge, candidate.stages.back().norm, stages_[c].back(), call.weight(candidate), g_sum,
                             [&](int i) { return total(stages_[c].back().partial, i); });
        if (candidate.alpha >= 0) alpha_grad_[candidate.alpha] = alpha_grad;
    }

    // Coefficients of stage s, whose sums the derivative of stage s + 1 has left.
    void coefficients(const Edge& edge, const Candidate& candidate, std::size_t s, int c) {
        const Partial<T>& partial = stages_[c][s].partial;
        set(
            edge, candidate.stages[s].norm, stages_[c][s], 1, [&](int i) { return total(partial, i); },
            [&](int i) { return total(partial, i, true); });
    }

    template <class Own, class Sum, class Centred>
    double set(const Edge& edge, const Norm& norm, const Own& own, double alpha, Sum g_sum, Centred g_centred) {
        return own.norm_grad.set(norm, own.norm, call.parameter(norm.gamma), call.parameter(norm.beta), alpha,
                                 this->count(edge.target), g_sum, g_centred, to_.parameter(norm.gamma),
                                 to_.parameter(norm.beta));
    }

    // The i-th stage from the end of every candidate that has it, for one image; with the first go the candidates
    // without stages.
    void go_back(const Edge& edge, std::size_t i, int n, int thread_number) {
        const BackwardThread<T>& thread = threads_[thread_number];
        const T* x = source_image(edge.source, n);
        this->pad_source(edge, x, thread.planes);
        for (std::size_t c = 0; c < edge.candidates.size(); ++c) {
            if (i < stages_[c].size()) stage_back(edge, c, stages_[c].size() - 1 - i, n, thread, thread_number);
            if (i > 0) continue;
            const Candidate& candidate = edge.candidates[c];
            if (candidate.pool != Pool::none) pool_back(edge, candidate, plain_[c], n);
            if (candidate.identity && wants(edge.source))
                for (int b = 0; b < blocks(graph.channels[edge.source]); ++b)
                    k.axpy(T(call.weight(candidate)), grad(edge.target, n) + b * plane_size(edge.target),
                           sizes[edge.target].pixels(), grad(edge.source, n) + b * plane_size(edge.source));
        }
    }

    void pool_back(const Edge& edge, const Candidate& candidate, const PlainScratch<T>& own, int n) {
        const std::ptrdiff_t at = n * image_size(edge.target);
        for (int b = 0; b < own.partial.blocks; ++b) {
            const std::ptrdiff_t plane = b * plane_size(edge.target);
            norm_back(edge, candidate.pool_norm, own, b, grad(edge.target, n) + plane,
                      pooled_.of(edge.stride, candidate.pool).values + at + plane, true,
                      pooled_grads_.of(edge.stride, candidate.pool).values + at + plane);
        }
    }

    template <class Own>
    void norm_back(const Edge& edge, const Norm& norm, const Own& own, int b, const T* g, const T* u, bool add,
                   T* out) const {
        const int c = b * lanes;
        // With running statistics ∂u = a·g; not to look at u keeps its NaN and ±inf out of the gradient, as PyTorch
        // does.
        k.norm_grad(g, norm.batch() ? u : nullptr, own.norm.mean + c, own.norm_grad.a + c, own.norm_grad.b + c,
                    own.norm_grad.c + c, sizes[edge.target].pixels(), add, out);
    }

    void stage_back(const Edge& edge, std::size_t c, std::size_t s, int n, const BackwardThread<T>& thread,
                    int thread_number) {
        const Stage& stage = edge.candidates[c].stages[s];
        const StageScratch<T>& own = stages_[c][s];
        const bool last = s + 1 == stages_[c].size();
        const std::ptrdiff_t at = n * image_size(edge.target), pixels = sizes[edge.target].pixels();
        if (s == 0 && !wants(edge.source) && !wants_parameters()) return;
        for (int b = 0; b < blocks(stage.out_channels); ++b) {
            const std::ptrdiff_t plane = b * plane_size(edge.target);
            norm_back(edge, stage.norm, own, b, (last ? grad(edge.target, n) : own.grad + at) + plane,
                      own.output + at + plane, false, thread.du + plane);
        }
        if (wants_parameters()) {
            const T* d = own.gathered + n * this->gathered_size(edge, stage);
            if (!last) gather(edge, c, s, n, thread, thread.gathered), d = thread.gathered;
            for (int i = 0; i < stage.gathers(); ++i)
                k.pointwise_weight_grad(
                    thread.du, blocks(stage.out_channels), d + i * blocks(stage.in_channels) * plane_size(edge.target),
                    blocks(stage.in_channels), pixels,
                    own.pointwise_grad + thread_number * sums_stride_ + i * pointwise_grad_size(stage) / 2);
        }
        const int rows = stage.out_channels / stage.gathers();
        for (int i = 0; i < stage.gathers(); ++i) {
            k.pointwise(thread.du, i * rows, (i + 1) * rows, own.pointwise_back + i * packed_back_size(stage) / 2,
                        pixels, blocks(stage.in_channels), thread.gathered, nullptr, nullptr, nullptr);
            scatter(edge, c, s, i, n, thread, thread_number);
        }
    }

    // From the gradient of d, in thread.gathered, to that of the stage's input and of its depthwise weight.
    void scatter(const Edge& edge, std::size_t c, std::size_t s, int half, int n, const BackwardThread<T>& thread,
                 int thread_number) {
        const Stage& stage = edge.candidates[c].stages[s];
        for (int b = 0; b < blocks(stage.in_channels); ++b) {
            const T* dd = thread.gathered + b * plane_size(edge.target);
            const std::ptrdiff_t plane = b * plane_size(edge.source);
            const T* x = source_image(edge.source, n) + plane;
            if (stage.kind == Stage::Kind::depthwise)
                depthwise_back(edge, c, s, b, n, dd, thread, thread_number);
            else if (!wants(edge.source))
                continue;
            else if (stage.kind == Stage::Kind::pointwise)
                k.relu_grad(dd, x, sizes[edge.target].pixels(), grad(edge.source, n) + plane);
            else
                k.relu_subsample_grad(dd, x, sizes[edge.source], half, sizes[edge.target],
                                      grad(edge.source, n) + plane);
        }
    }

    void depthwise_back(const Edge& edge, std::size_t c, std::size_t s, int b, int n, const T* dd,
                        const BackwardThread<T>& thread, int thread_number) {
        const Stage& stage = edge.candidates[c].stages[s];
        const StageScratch<T>& own = stages_[c][s];
        const Depthwise conv = this->convolution(edge, stage);
        const std::ptrdiff_t taps = std::ptrdiff_t(b) * stage.kernel * stage.kernel * lanes;
        const std::ptrdiff_t at = n * image_size(edge.target) + b * plane_size(edge.target);
        const int ch = b * lanes;
        k.pad(dd, conv.out, graph.pad, thread.plane);
        if (wants_parameters()) {
            const T* plane = thread.planes + b * this->padded_plane_size(edge.source);
            if (s > 0) {
                const StageScratch<T>& before = stages_[c][s - 1];
                k.norm_relu_pad(before.output + at, before.norm.mean + ch, before.norm.scale + ch,
                                before.norm.shift + ch, conv.in, graph.pad, thread.normed);
                plane = thread.normed;
            }
            k.depthwise_weight_grad(conv, plane, dd, own.depthwise_grad + thread_number * sums_stride_ + taps);
        }
        if (s > 0) {
            const StageScratch<T>& before = stages_[c][s - 1];
            double* sums = before.partial.at(n, b);
            std::memset(sums, 0, 2 * lanes * sizeof(double));
            k.depthwise_grad_norm(conv, thread.plane, own.depthwise_back + taps, before.output + at,
                                  before.norm.mean + ch, before.norm.scale + ch, before.norm.shift + ch,
                                  before.grad + at, sums);
        } else if (wants(edge.source)) {
            const std::ptrdiff_t plane = b * plane_size(edge.source);
            k.depthwise_grad_relu(conv, thread.plane, own.depthwise_back + taps, source_image(edge.source, n) + plane,
                                  grad(edge.source, n) + plane);
        }
    }

    void store_weight_gradients(const Candidate& candidate, int c) {
        for (std::size_t s = 0; s < stages_[c].size(); ++s) {
            const Stage& stage = candidate.stages[s];
            const StageScratch<T>& own = stages_[c][s];
            const int rows = stage.out_channels / stage.gathers();
            for (int i = 0; i < stage.gathers(); ++i)
                unpack_pointwise_grad(own.pointwise_grad + i * pointwise_grad_size(stage) / 2, sums_stride_,
                                      call.threads, i * rows, rows, stage.in_channels, lanes,
                                      to_.parameters[stage.pointwise + i]);
            if (stage.kind == Stage::Kind::depthwise)
                unpack_depthwise_grad(own.depthwise_grad, sums_stride_, call.threads, stage.in_channels,
                                      stage.kernel * stage.kernel, lanes, to_.parameters[stage.depthwise]);
        }
    }

    const Gradients<T>& to_;
    std::vector<double> alpha_grad_;
    std::vector<T*> grads_;                  // blocked, all images; null where not wanted
    std::vector<Partial<T>> gradient_sums_;  // Σ g of every state
    T* x_buffer_ = nullptr;
    const T* x_ = nullptr;  // the current source, blocked, all images
    std::vector<BackwardThread<T>> threads_;
    PooledSource<T> pooled_, pooled_grads_;             // of the current source
    std::vector<std::vector<StageScratch<T>>> stages_;  // of the current edge, by candidate
    std::vector<PlainScratch<T>> plain_;                // of the current edge, by candidate
    T* sums_ = nullptr;
    std::size_t sums_stride_ = 0;
};

}  // namespace

template <class T>
void backward(const Graph& graph, const Call<T>& call, const Gradients<T>& gradients) {
    Backward<T>(graph, call, gradients).run();
}

template void backward(const Graph&, const Call<float>&, const Gradients<float>&);
template void backward(const Graph&, const Call<double>&, const Gradients<double>&);

}  // namespace fastnas
