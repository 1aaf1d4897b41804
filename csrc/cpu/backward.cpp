// Backward of a cell: states in reverse order, edge by edge.
//
// When a state's turn as source comes, the gradients of all its targets are complete. For each candidate of an edge a
// first pass over the images (passes.h) computes again what forward did not save and the sums that batch norm's
// derivative needs; each further pass goes back through one stage. What edges out of one source share (its pools, their
// gradients, and the planes that depthwise convolutions read) is computed once.
#include <cstring>

#include "cell.h"
#include "passes.h"

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
    T* du;  // a band of the gradient of a stage's 1×1 convolution
    T* dd;  // that of its input: padded planes of a depthwise stage, a band of the others
    std::ptrdiff_t dd_size;
    Size margins{};  // size of the planes whose margins are zero in dd
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
        std::ptrdiff_t du = 0, dd = 0;
        for (const Edge& edge : graph.edges)
            for (const Candidate& candidate : edge.candidates)
                for (const Stage& stage : candidate.stages) {
                    du = std::max(du, blocks(stage.out_channels) * this->band_size(edge));
                    dd = std::max(dd, blocks(stage.in_channels) * (stage.kind == Stage::Kind::depthwise
                                                                       ? this->padded_plane_size(edge.target)
                                                                       : this->band_size(edge)));
                }
        for (const ThreadScratch<T>& shared : layout_threads<T>(*this, arena)) {
            BackwardThread<T> thread{shared, arena.take<T>(du), arena.take<T>(dd), dd, {}};
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
        partial.add_up(images);
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
            pooled_.layout(*this, source, images, arena);
            pooled_grads_.layout(*this, source, images, arena);
            rectified_.layout(*this, source, images, arena);
        });
        each_image([&](int n, int thread) {
            pooled_.compute(*this, source, n, source_image(source, n), false, threads_[thread].pool);
            rectified_.compute(*this, source, n, source_image(source, n));
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
                    k.max_pool_grad(g_plane, x, sizes[source], edge.stride, sizes[edge.target], thread.pool, to);
                else
                    k.avg_pool_grad(g_plane, sizes[source], edge.stride, sizes[edge.target], thread.pool, to);
            }
        });
    }

    void run_edge(const Edge& edge) {
        const Scratch scratch([&](Arena& arena) { layout_edge(edge, arena); });
        set_plain_norms(edge);
        const std::vector<Step> stages = all_stages(edge);
        parallel_for(call.threads, int(stages.size()), [&](int i, int) {
            const auto [c, s] = stages[i];
            prepare(edge.candidates[c].stages[s], stages_[c][s]);
        });
        // A chain recomputes, then goes back stage by stage. The first is that of the candidates without stages.
        std::vector<int> lengths{2};
        for (const auto& stages : stages_) lengths.push_back(stages.empty() ? 0 : int(stages.size()) + 1);
        for (const Pass& pass : passes(lengths)) {
            each_image([&](int n, int thread) {
                for (const auto [chain, i] : pass)
                    if (chain == 0)
                        i == 0 ? recompute_plain(edge, n) : plain_back(edge, n);
                    else if (i == 0)
                        recompute(edge, chain - 1, n, threads_[thread]);
                    else
                        stage_back(edge, chain - 1, stages_[chain - 1].size() - i, n, threads_[thread], thread);
            });
            for (const auto [chain, i] : pass) coefficients(edge, chain - 1, i);
        }
        if (wants_parameters())
            parallel_for(call.threads, int(stages.size()), [&](int i, int) {
                const auto [c, s] = stages[i];
                store_weight_gradients(edge.candidates[c].stages[s], stages_[c][s]);
            });
    }

    // What the next step of a chain needs, when a step has left its sums.
    void coefficients(const Edge& edge, int c, int step) {
        for (int i = 0; c < 0 && step == 0 && i < int(plain_.size()); ++i)
            if (stages_[i].empty()) last_coefficients(edge, edge.candidates[i], i);
        if (c < 0) return;
        const int stages = int(stages_[c].size());
        if (step == 0)
            last_coefficients(edge, edge.candidates[c], c);
        else if (step < stages)
            stage_coefficients(edge, edge.candidates[c], stages - 1 - step, c);
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
        std::ptrdiff_t most_gathered = 0;
        for (const Candidate& candidate : edge.candidates)
            if (!candidate.stages.empty())
                most_gathered = std::max(most_gathered, images * this->gathered_size(edge, candidate.stages.back()));
        StateBuffers<T> outputs[2], grads[2], gathered[2];
        for (std::size_t c = 0; c < edge.candidates.size(); ++c) {
            const Candidate& candidate = edge.candidates[c];
            if (candidate.pool != Pool::none || candidate.identity) norm(plain_[c]);
            for (const Stage& stage : candidate.stages) {
                StageScratch<T> scratch{};
                const std::size_t after = &candidate.stages.back() - &stage;
                T* saved = this->saved_stage(stage);
                scratch.output = saved ? saved : outputs[c % 2].at(after, state_size(edge.target), arena);
                if (after == 0) scratch.gathered = gathered[c % 2].at(0, most_gathered, arena);
                if (after > 0) scratch.grad = grads[c % 2].at(after - 1, state_size(edge.target), arena);
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

    void set_plain_norms(const Edge& edge) {
        for (std::size_t c = 0; c < edge.candidates.size(); ++c) {
            const Candidate& candidate = edge.candidates[c];
            if (candidate.pool != Pool::none) this->norm_state(candidate.pool_norm, 1, plain_[c].norm);
            if (candidate.identity) std::memset(plain_[c].norm.mean, 0, plain_[c].partial.blocks * lanes * sizeof(T));
        }
    }

    // Packs a stage's weights, sets its norm and clears its sums.
    void prepare(const Stage& stage, StageScratch<T>& own) {
        this->pack(stage, own.pointwise, own.depthwise);
        const int rows = stage.out_channels / stage.gathers();
        for (int i = 0; i < stage.gathers(); ++i)
            pack_pointwise(k, call.parameters[stage.pointwise + i], stage.in_channels, rows, true, 0, stage.in_channels,
                           own.pointwise_back + i * packed_back_size(stage) / 2);
        if (stage.kind == Stage::Kind::depthwise)
            pack_depthwise(call.parameters[stage.depthwise], stage.in_channels, stage.kernel, stage.dilation,
                           stage.stride, true, lanes, own.depthwise_back);
        this->norm_state(stage.norm, 1, own.norm);
        for (int t = 0; sums_ && t < call.threads; ++t) {
            std::memset(own.pointwise_grad + t * sums_stride_, 0, pointwise_grad_size(stage) * sizeof(T));
            std::memset(own.depthwise_grad + t * sums_stride_, 0, this->packed_depthwise_size(stage) * sizeof(T));
        }
    }

    // Σ g·(u - mean) of the candidates without stages, for one image.
    void recompute_plain(const Edge& edge, int n) {
        for (std::size_t c = 0; c < edge.candidates.size(); ++c) {
            const Candidate& candidate = edge.candidates[c];
            if (candidate.pool != Pool::none)
                products(edge, pooled_.of(edge.stride, candidate.pool).values + n * image_size(edge.target), n,
                         plain_[c]);
            if (candidate.identity && to_.alpha) products(edge, source_image(edge.source, n), n, plain_[c]);
        }
    }

    void products(const Edge& edge, const T* x, int n, const PlainScratch<T>& own) {
        own.partial.clear(n);
        for (int b = 0; b < own.partial.blocks; ++b)
            k.product(grad(edge.target, n) + b * plane_size(edge.target), x + b * plane_size(edge.target),
                      own.norm.mean + b * lanes, sizes[edge.target].pixels(), own.partial.at(n, b));
    }

    // Outputs of a candidate's stages that were not saved, and Σ g·(u - mean), for one image.
    void recompute(const Edge& edge, int c, int n, const BackwardThread<T>& thread) {
        for (std::size_t s = 0; s < stages_[c].size(); ++s) recompute_stage(edge, c, s, n, thread);
    }

    void recompute_stage(const Edge& edge, std::size_t c, std::size_t s, int n, const BackwardThread<T>& thread) {
        const Stage& stage = edge.candidates[c].stages[s];
        const StageScratch<T>& own = stages_[c][s];
        const bool last = s + 1 == stages_[c].size();
        if (!last && this->saved_stage(stage)) return;
        const T* planes = input_planes(edge, c, s, n, thread);
        own.partial.clear(n);
        this->each_band(edge, [&](Rows rows) {
            const Blocks<T> d = last ? gathered(edge, stage, own, n, rows) : gathered_band(edge, stage, thread, rows);
            this->gather(edge, stage, source_image(edge.source, n), planes, own.depthwise, rows, d);
            this->multiply(edge, stage, rows, d, own.pointwise, thread.product,
                           own.output + n * image_size(edge.target), last ? grad(edge.target, n) : nullptr,
                           own.norm.mean, own.partial.at(n));
        });
    }

    // Rows of d, kept from `recompute` for a last stage, or in scratch.
    Blocks<T> gathered(const Edge& edge, const Stage& stage, const StageScratch<T>& own, int n, Rows rows) const {
        return this->whole(edge, rows, stage.gathers() * blocks(stage.in_channels),
                           own.gathered + n * this->gathered_size(edge, stage));
    }
    Blocks<T> gathered_band(const Edge& edge, const Stage& stage, const BackwardThread<T>& thread, Rows rows) const {
        return this->band(edge, rows, stage.gathers() * blocks(stage.in_channels), thread.gathered);
    }

    // The padded planes that stage s convolves.
    const T* input_planes(const Edge& edge, std::size_t c, std::size_t s, int n, const BackwardThread<T>& thread) {
        if (s == 0) return rectified_.image(n);
        const StageScratch<T>& before = stages_[c][s - 1];
        this->pad_normed(edge, edge.candidates[c].stages[s], before.output + n * image_size(edge.target), before.norm,
                         thread.planes);
        return thread.planes;
    }

    // Coefficients of a candidate's last norm, and its ∂α.
    void last_coefficients(const Edge& edge, const Candidate& candidate, int c) {
        const Partial<T>& partial = stages_[c].empty() ? plain_[c].partial : stages_[c].back().partial;
        const auto g_sum = [&](int i) { return gradient_sums_[edge.target].first(images, i); };
        const auto g_centred = [&](int i) { return partial.first(images, i); };
        double alpha_grad = 0;
        if (!candidate.identity || to_.alpha) partial.add_up(images);
        if (candidate.identity && to_.alpha)
            for (int i = 0; i < graph.channels[edge.target]; ++i) alpha_grad += g_centred(i);
        if (candidate.pool != Pool::none)
            alpha_grad = set(edge, candidate.pool_norm, plain_[c], call.weight(candidate), g_sum, g_centred);
        if (!stages_[c].empty())
            alpha_grad =
                set(edge, candidate.stages.back().norm, stages_[c].back(), call.weight(candidate), g_sum, g_centred);
        if (candidate.alpha >= 0) alpha_grad_[candidate.alpha] = alpha_grad;
    }

    // Coefficients of stage s, whose sums the derivative of stage s + 1 has left.
    void stage_coefficients(const Edge& edge, const Candidate& candidate, std::size_t s, int c) {
        const Partial<T>& partial = stages_[c][s].partial;
        partial.add_up(images);
        set(
            edge, candidate.stages[s].norm, stages_[c][s], 1, [&](int i) { return partial.first(images, i); },
            [&](int i) { return partial.second(images, i); });
    }

    template <class Own, class Sum, class Centred>
    double set(const Edge& edge, const Norm& norm, const Own& own, double alpha, Sum g_sum, Centred g_centred) {
        return own.norm_grad.set(norm, own.norm, call.parameter(norm.gamma), call.parameter(norm.beta), alpha,
                                 this->count(edge.target), g_sum, g_centred, to_.parameter(norm.gamma),
                                 to_.parameter(norm.beta));
    }

    // Back through the candidates without stages, for one image.
    void plain_back(const Edge& edge, int n) {
        for (std::size_t c = 0; c < edge.candidates.size(); ++c) {
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
            norm_back(candidate.pool_norm, own, b, grad(edge.target, n) + plane,
                      pooled_.of(edge.stride, candidate.pool).values + at + plane, sizes[edge.target].pixels(), true,
                      pooled_grads_.of(edge.stride, candidate.pool).values + at + plane);
        }
    }

    template <class Own>
    void norm_back(const Norm& norm, const Own& own, int b, const T* g, const T* u, std::ptrdiff_t pixels, bool add,
                   T* out) const {
        const int c = b * lanes;
        // With running statistics ∂u = a·g; not to look at u keeps its NaN and ±inf out of the gradient, as PyTorch
        // does.
        k.norm_grad(g, norm.batch() ? u : nullptr, own.norm.mean + c, own.norm_grad.a + c, own.norm_grad.b + c,
                    own.norm_grad.c + c, pixels, add, out);
    }

    void stage_back(const Edge& edge, std::size_t c, std::size_t s, int n, BackwardThread<T>& thread,
                    int thread_number) {
        const Stage& stage = edge.candidates[c].stages[s];
        if (s == 0 && !wants(edge.source) && !wants_parameters()) return;
        const bool depthwise = stage.kind == Stage::Kind::depthwise;
        const T* planes = depthwise && wants_parameters() ? input_planes(edge, c, s, n, thread) : nullptr;
        if (depthwise) clear_margins(edge, thread);
        this->each_band(edge, [&](Rows rows) { band_back(edge, c, s, n, rows, planes, thread, thread_number); });
        for (int b = 0; depthwise && b < blocks(stage.in_channels); ++b)
            depthwise_back(edge, c, s, b, n, planes, thread, thread_number);
    }

    // What `band_back` writes leaves the margins of dd as they are, so they are cleared once for a size.
    void clear_margins(const Edge& edge, BackwardThread<T>& thread) const {
        const Size size = sizes[edge.target];
        if (thread.margins.h == size.h && thread.margins.w == size.w) return;
        std::memset(thread.dd, 0, thread.dd_size * sizeof(T));
        thread.margins = size;
    }

    // Through batch norm and 1×1 convolution, for some rows: to dd, and further where no depthwise convolution follows.
    void band_back(const Edge& edge, std::size_t c, std::size_t s, int n, Rows rows, const T* planes,
                   BackwardThread<T>& thread, int thread_number) {
        const Stage& stage = edge.candidates[c].stages[s];
        const StageScratch<T>& own = stages_[c][s];
        const bool last = s + 1 == stages_[c].size();
        const std::ptrdiff_t at = n * image_size(edge.target), pixels = this->pixels(edge, rows);
        const Blocks<T> du = this->band(edge, rows, blocks(stage.out_channels), thread.du);
        const Blocks<T> u = this->whole(edge, rows, du.count, own.output + at);
        const Blocks<T> g = this->whole(edge, rows, du.count, last ? grad(edge.target, n) : own.grad + at);
        for (int b = 0; b < du.count; ++b) norm_back(stage.norm, own, b, g[b], u[b], pixels, false, du[b]);
        const int in_blocks = blocks(stage.in_channels), channels = stage.out_channels / stage.gathers();
        if (wants_parameters()) {
            const Blocks<T> d = last ? gathered(edge, stage, own, n, rows) : gathered_band(edge, stage, thread, rows);
            if (!last) this->gather(edge, stage, source_image(edge.source, n), planes, own.depthwise, rows, d);
            for (int i = 0; i < stage.gathers(); ++i)
                k.pointwise_weight_grad(
                    du, {d[i * in_blocks], in_blocks, d.stride}, pixels,
                    own.pointwise_grad + thread_number * sums_stride_ + i * pointwise_grad_size(stage) / 2);
        }
        const bool depthwise = stage.kind == Stage::Kind::depthwise;
        if (!depthwise && !wants(edge.source)) return;
        for (int i = 0; i < stage.gathers(); ++i) {
            const Blocks<T> dd =
                depthwise ? padded_rows(edge, stage, rows, thread.dd) : this->band(edge, rows, in_blocks, thread.dd);
            const int width = sizes[edge.target].w, padded = width + 2 * graph.pad;
            const Area area =
                depthwise ? Area{rows.count(), width, std::ptrdiff_t(padded) * lanes} : Area{1, pixels, 0};
            k.pointwise(du, i * channels, (i + 1) * channels, own.pointwise_back + i * packed_back_size(stage) / 2,
                        area, dd, nullptr, nullptr, nullptr);
            if (!depthwise) rectifier_back(edge, stage, i, n, rows, dd);
        }
        if (!depthwise) thread.margins = {};
    }

    Blocks<T> padded_rows(const Edge& edge, const Stage& stage, Rows rows, T* planes) const {
        const std::ptrdiff_t first = std::ptrdiff_t(rows.first) * (sizes[edge.target].w + 2 * graph.pad) + graph.pad;
        return {planes + first * lanes, blocks(stage.in_channels), this->padded_plane_size(edge.target)};
    }

    // To the source, for some rows of the gradient of a stage that has no depthwise convolution.
    void rectifier_back(const Edge& edge, const Stage& stage, int half, int n, Rows rows, const Blocks<T>& dd) const {
        for (int b = 0; b < dd.count; ++b) {
            const T* x = source_image(edge.source, n) + b * plane_size(edge.source);
            T* to = grad(edge.source, n) + b * plane_size(edge.source);
            const std::ptrdiff_t at = this->offset(edge, rows);
            if (stage.kind == Stage::Kind::pointwise)
                k.relu_grad(dd[b], x + at, this->pixels(edge, rows), to + at);
            else
                k.relu_subsample_grad(dd[b], x, sizes[edge.source], half, rows, sizes[edge.target].w, to);
        }
    }

    // From dd to the gradient of block b of the stage's input, and of its depthwise weight.
    void depthwise_back(const Edge& edge, std::size_t c, std::size_t s, int b, int n, const T* planes,
                        const BackwardThread<T>& thread, int thread_number) {
        const Stage& stage = edge.candidates[c].stages[s];
        const StageScratch<T>& own = stages_[c][s];
        const Depthwise conv = this->convolution(edge, stage);
        const std::ptrdiff_t taps = std::ptrdiff_t(b) * stage.kernel * stage.kernel * lanes;
        const T* dd = thread.dd + b * this->padded_plane_size(edge.target);
        const int input = stage.stride == 1 ? edge.target : edge.source;
        if (wants_parameters())
            k.depthwise_weight_grad(conv, planes + b * this->padded_plane_size(input), dd,
                                    own.depthwise_grad + thread_number * sums_stride_ + taps);
        if (s > 0) {
            const StageScratch<T>& before = stages_[c][s - 1];
            const std::ptrdiff_t at = n * image_size(edge.target) + b * plane_size(edge.target);
            double* sums = before.partial.at(n, b);
            std::memset(sums, 0, 2 * lanes * sizeof(double));
            const int ch = b * lanes;
            k.depthwise_grad_norm(conv, dd, own.depthwise_back + taps, before.output + at, before.norm.mean + ch,
                                  before.norm.scale + ch, before.norm.shift + ch, before.grad + at, sums);
        } else if (wants(edge.source)) {
            const std::ptrdiff_t plane = b * plane_size(edge.source);
            k.depthwise_grad_relu(conv, dd, own.depthwise_back + taps, source_image(edge.source, n) + plane,
                                  grad(edge.source, n) + plane);
        }
    }

    void store_weight_gradients(const Stage& stage, const StageScratch<T>& own) {
        add_up(own.pointwise_grad, pointwise_grad_size(stage), sums_stride_, call.threads);
        const int rows = stage.out_channels / stage.gathers();
        for (int i = 0; i < stage.gathers(); ++i)
            unpack_pointwise_grad(k, own.pointwise_grad + i * pointwise_grad_size(stage) / 2, i * rows, rows,
                                  stage.in_channels, to_.parameters[stage.pointwise + i]);
        if (stage.kind != Stage::Kind::depthwise) return;
        add_up(own.depthwise_grad, this->packed_depthwise_size(stage), sums_stride_, call.threads);
        unpack_depthwise_grad(own.depthwise_grad, stage.in_channels, stage.kernel * stage.kernel, lanes,
                              to_.parameters[stage.depthwise]);
    }

    const Gradients<T>& to_;
    std::vector<double> alpha_grad_;
    std::vector<T*> grads_;                  // blocked, all images; null where not wanted
    std::vector<Partial<T>> gradient_sums_;  // Σ g of every state
    T* x_buffer_ = nullptr;
    const T* x_ = nullptr;  // the current source, blocked, all images
    std::vector<BackwardThread<T>> threads_;
    PooledSource<T> pooled_, pooled_grads_;             // of the current source
    RectifiedSource<T> rectified_;                      // of the current source
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
