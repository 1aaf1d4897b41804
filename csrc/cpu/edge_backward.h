// Backward of one edge, in its source's turn, when the gradient of its target is complete.
//
// For each candidate a first pass over the images (passes.h) computes again what forward did not save and the sums that
// batch norm's derivative needs; each further pass goes back through one stage. Where threads share an image, such a
// pass is two: depthwise convolutions and resamplings read their neighbours' rows. Results are added to the gradient of
// the source.
#pragma once

#include "backward_weights.h"

namespace fastnas {

template <class T>
class EdgeBackward {
    using Thread = BackwardThread<T>;

  public:
    EdgeBackward(Backward<T>& cell, const Edge& edge, const EdgeBackWeights<T>& weights)
        : cell_(cell),
          edge_(edge),
          weights_(weights),
          k_(cell.k),
          lanes_(cell.lanes),
          image_(cell.image_size(edge.target)),
          plane_(cell.plane_size(edge.target)) {}

    void run() {
        const Scratch scratch([this](Arena& arena) { layout(arena); });
        for (auto& stages : stages_)
            for (StageScratch& own : stages) cell_.norm_state(own.stage.norm, 1, own.norm);
        cell_.gathered_grad.clear_margins(cell_.sizes[edge_.target], cell_.call.threads);
        for (const std::vector<Step>& pass : passes(steps(), cell_.slabs)) {
            cell_.each_slab([&](const Slab& slab, int thread) {
                for (const Step& step : pass) (this->*step.run)(*step.own, slab, cell_.threads[thread]);
            });
            for (const Step& step : pass)
                if (step.sums_of) coefficients(*step.sums_of);
        }
    }

  private:
    struct StageScratch : NormScratch<T> {
        const Candidate& candidate;
        const Stage& stage;
        const StageWeights<T>& weights;
        const StageBackWeights<T>& back;
        const StageScratch* before;  // null for the first
        bool last;
        T* output = nullptr;    // u, all images
        T* gathered = nullptr;  // d, all images; null where it is computed again, band by band
        T* grad = nullptr;      // with respect to the normed output, all images; only before the last
    };

    struct Step {
        Wait wait;
        void (EdgeBackward::*run)(const StageScratch& own, const Slab& slab, const Thread& thread) const;
        const StageScratch* own;
        const StageScratch* sums_of = nullptr;  // the stage whose sums are then complete
    };

    // Each candidate computes again what was not saved, then goes back stage by stage.
    std::vector<Step> steps() const {
        std::vector<Step> result;
        for (const auto& stages : stages_) {
            for (const StageScratch& own : stages)
                if (own.last || !cell_.saved_stage(own.stage))
                    result.push_back({own.before ? Wait::image : Wait::slab, &EdgeBackward::recompute, &own,
                                      own.last ? &own : nullptr});
            for (auto own = stages.rbegin(); own != stages.rend(); ++own) {
                result.push_back({Wait::batch, &EdgeBackward::pointwise_back, &*own});
                if (own->stage.kind == Stage::Kind::depthwise)
                    result.push_back({Wait::image, &EdgeBackward::depthwise_back, &*own, own->before});
                if (own->stage.kind == Stage::Kind::resize)
                    result.push_back({Wait::image, &EdgeBackward::resize_back, &*own});
            }
        }
        return result;
    }

    T* target_grad(int n) const { return cell_.grad(edge_.target, n); }
    const T* source_image(int n) const { return cell_.source_image(edge_.source, n); }

    void layout(Arena& arena) {
        stages_.clear();
        stages_.resize(edge_.candidates.size());
        std::ptrdiff_t most_gathered = 0;
        for (const Candidate& candidate : edge_.candidates)
            if (keeps_gathered(candidate))
                most_gathered =
                    std::max(most_gathered, cell_.images * cell_.gathered_size(edge_, candidate.stages.back()));
        StateBuffers<T> outputs[2], grads[2], gathered[2];
        for (std::size_t c = 0, number = 0; c < edge_.candidates.size(); ++c) {
            const Candidate& candidate = edge_.candidates[c];
            stages_[c].reserve(candidate.stages.size());  // `before` points into it
            const bool keeps = keeps_gathered(candidate);
            T* d = keeps ? gathered[c % 2].at(0, most_gathered, arena) : nullptr;  // null, too, where sizes are counted
            for (const Stage& stage : candidate.stages) {
                const std::size_t after = &candidate.stages.back() - &stage;
                stages_[c].push_back({{},
                                      candidate,
                                      stage,
                                      weights_.forward[number],
                                      weights_[number],
                                      stages_[c].empty() ? nullptr : &stages_[c].back(),
                                      after == 0});
                ++number;
                StageScratch& own = stages_[c].back();
                T* saved = cell_.saved_stage(stage);
                own.output = saved ? saved : outputs[c % 2].at(after, cell_.state_size(edge_.target), arena);
                if (after == 0) own.gathered = d;
                // The gradient before the last stage takes the place of d, which that stage's derivative has read.
                if (after > 0)
                    own.grad =
                        after == 1 && keeps ? d : grads[c % 2].at(after - 1, cell_.state_size(edge_.target), arena);
                own.layout(cell_, edge_.target, arena);
            }
        }
    }

    // Whether the d of a last stage waits for the weights' derivative: to resample again is cheap.
    bool keeps_gathered(const Candidate& candidate) const {
        return cell_.wants_parameters() && !candidate.stages.empty() &&
               candidate.stages.back().kind != Stage::Kind::resize;
    }

    // A stage's output, of the last one also Σ g·(u - mean), for one slab.
    void recompute(const StageScratch& own, const Slab& slab, const Thread& thread) const {
        const int n = slab.image;
        const T* planes = input_planes(own, slab, thread);
        own.partial.clear(slab.index);
        cell_.each_band(edge_, cell_.rows(edge_.target, slab), [&](Rows rows) {
            const Blocks<T> d = gathered(own, n, rows, thread);
            cell_.gather(edge_, own.stage, source_image(n), planes, own.weights.depthwise, rows, d);
            cell_.multiply(edge_, own.stage, rows, d, own.weights.pointwise, thread.product, own.output + n * image_,
                           own.last ? target_grad(n) : nullptr, own.norm.mean, own.partial.at(slab.index));
        });
    }

    // Rows of d: kept from `recompute` on, or in scratch.
    Blocks<T> gathered(const StageScratch& own, int n, Rows rows, const Thread& thread) const {
        const int count = own.stage.gathers() * cell_.blocks(own.stage.in_channels);
        return own.gathered ? cell_.whole(edge_, rows, count, own.gathered + n * cell_.gathered_size(edge_, own.stage))
                            : cell_.band(edge_, rows, count, thread.gathered);
    }

    // The padded planes that a slab of a stage convolves.
    const T* input_planes(const StageScratch& own, const Slab& slab, const Thread& thread) const {
        if (!own.before) return cell_.rectified.image(slab.image);
        cell_.pad_normed(edge_, own.stage, cell_.rows(edge_.target, slab), own.before->output + slab.image * image_,
                         own.before->norm, thread.planes);
        return thread.planes;
    }

    // What the way back through a stage needs, when its sums are complete.
    void coefficients(const StageScratch& own) {
        own.partial.add_up();
        if (own.last)
            cell_.last_norm_gradients(own.candidate, own.stage.norm, own, edge_.target);
        else
            cell_.norm_gradients(
                own.stage.norm, own, edge_.target, 1, [&](int c) { return own.partial.first(c); },
                [&](int c) { return own.partial.second(c); });
    }

    void norm_back(const StageScratch& own, int b, const T* g, const T* u, std::ptrdiff_t pixels, T* out) const {
        const int c = b * lanes_;
        // With running statistics ∂u = a·g; not to look at u keeps its NaN and ±inf out of the gradient, as PyTorch
        // does.
        k_.norm_grad(g, own.stage.norm.batch() ? u : nullptr, own.norm.mean + c, own.norm_grad.a + c,
                     own.norm_grad.b + c, own.norm_grad.c + c, pixels, out);
    }

    // Back through the batch norm and 1×1 convolution of a stage, for one slab, and to the weights.
    void pointwise_back(const StageScratch& own, const Slab& slab, const Thread& thread) const {
        if (!own.before && !cell_.wants(edge_.source) && !cell_.wants_parameters()) return;
        const bool weights = own.stage.kind == Stage::Kind::depthwise && cell_.wants_parameters();
        const T* planes = weights ? input_planes(own, slab, thread) : nullptr;
        const Rows all = cell_.rows(edge_.target, slab);
        cell_.each_band(edge_, all, [&](Rows rows) { band_back(own, slab, rows, planes, thread); });
        for (int b = 0; weights && b < cell_.blocks(own.stage.in_channels); ++b)
            k_.depthwise_weight_grad(cell_.convolution(edge_, own.stage),
                                     planes + b * cell_.padded_plane_size(input_state(own.stage)),
                                     dd_planes(slab, thread) + b * cell_.padded_plane_size(edge_.target), all,
                                     own.back.depthwise_grad + weights_.to_thread(thread.number) + taps(own.stage, b));
    }

    // To dd, for some rows, and further where no depthwise convolution follows.
    void band_back(const StageScratch& own, const Slab& slab, Rows rows, const T* planes, const Thread& thread) const {
        const Stage& stage = own.stage;
        const int n = slab.image;
        const std::ptrdiff_t at = n * image_, pixels = cell_.pixels(edge_.target, rows);
        const Blocks<T> du = cell_.band(edge_, rows, cell_.blocks(stage.out_channels), thread.du);
        const Blocks<T> u = cell_.whole(edge_, rows, du.count, own.output + at);
        const Blocks<T> g = cell_.whole(edge_, rows, du.count, own.last ? target_grad(n) : own.grad + at);
        for (int b = 0; b < du.count; ++b) norm_back(own, b, g[b], u[b], pixels, du[b]);
        const Blocks<T> d = gathered(own, n, rows, thread);
        if (!own.gathered && (cell_.wants_parameters() || stage.kind == Stage::Kind::resize))
            cell_.gather(edge_, stage, source_image(n), planes, own.weights.depthwise, rows, d);
        if (cell_.wants_parameters()) pointwise_weight_back(own, rows, d, du, thread);
        if (stage.kind != Stage::Kind::depthwise && !cell_.wants(edge_.source)) return;
        const int in_blocks = cell_.blocks(stage.in_channels), channels = stage.out_channels / stage.gathers();
        const int width = cell_.sizes[edge_.target].w, padded = width + 2 * cell_.graph.pad;
        // Where the gather does not overlap, in place of what was gathered, which the weights no longer need.
        const Blocks<T> dd = stage.overlaps() ? padded_rows(stage, rows, dd_planes(slab, thread))
                                              : cell_.band(edge_, rows, in_blocks, thread.gathered);
        const Area area =
            stage.overlaps() ? Area{rows.count(), width, std::ptrdiff_t(padded) * lanes_} : Area{1, pixels, 0};
        for (int i = 0; i < stage.gathers(); ++i) {
            k_.pointwise(du, i * channels, (i + 1) * channels,
                         own.back.pointwise + i * cell_.packed_back_size(stage) / 2, area, dd, nullptr, nullptr,
                         nullptr);
            if (!stage.overlaps()) rectifier_back(stage, i, n, rows, dd);
        }
        for (int b = 0; stage.kind == Stage::Kind::resize && b < in_blocks; ++b) k_.mask(d[b], area, dd[b]);
    }

    void pointwise_weight_back(const StageScratch& own, Rows rows, const Blocks<T>& d, const Blocks<T>& du,
                               const Thread& thread) const {
        const Stage& stage = own.stage;
        const int in_blocks = cell_.blocks(stage.in_channels);
        for (int i = 0; i < stage.gathers(); ++i)
            k_.pointwise_weight_grad(
                du, {d[i * in_blocks], in_blocks, d.stride}, cell_.pixels(edge_.target, rows),
                own.back.pointwise_grad + weights_.to_thread(thread.number) + i * cell_.pointwise_grad_size(stage) / 2);
    }

    Blocks<T> padded_rows(const Stage& stage, Rows rows, T* planes) const {
        return {planes + cell_.padded_offset(edge_.target, rows) + cell_.graph.pad * lanes_,
                cell_.blocks(stage.in_channels), cell_.padded_plane_size(edge_.target)};
    }
    T* dd_planes(const Slab& slab, const Thread& thread) const {
        return cell_.gathered_grad.at(slab, cell_.slabs, thread.number);
    }
    // The state whose size a stage's input has.
    int input_state(const Stage& stage) const { return stage.stride == 1 ? edge_.target : edge_.source; }
    // Where block b of a stage's packed depthwise weight starts.
    std::ptrdiff_t taps(const Stage& stage, int b) const {
        return std::ptrdiff_t(b) * stage.kernel * stage.kernel * lanes_;
    }

    // To the source, for some rows of the gradient of a stage whose gather does not overlap.
    void rectifier_back(const Stage& stage, int half, int n, Rows rows, const Blocks<T>& dd) const {
        const std::ptrdiff_t plane = cell_.plane_size(edge_.source), at = cell_.offset(edge_.target, rows);
        for (int b = 0; b < dd.count; ++b) {
            const T* x = source_image(n) + b * plane;
            T* to = cell_.grad(edge_.source, n) + b * plane;
            if (stage.kind == Stage::Kind::pointwise)
                k_.relu_grad(dd[b], x + at, cell_.pixels(edge_.target, rows), to + at);
            else
                k_.relu_subsample_grad(dd[b], x, cell_.sizes[edge_.source], half, rows, cell_.sizes[edge_.target].w,
                                       to);
        }
    }

    // From dd to the gradient of a stage's input, for one slab of that.
    void depthwise_back(const StageScratch& own, const Slab& slab, const Thread& thread) const {
        const Depthwise conv = cell_.convolution(edge_, own.stage);
        const Rows rows = cell_.rows(input_state(own.stage), slab);
        for (int b = 0; b < cell_.blocks(own.stage.in_channels); ++b) {
            const T* dd = dd_planes(slab, thread) + b * cell_.padded_plane_size(edge_.target);
            const T* weight = own.back.depthwise + taps(own.stage, b);
            if (const StageScratch* before = own.before) {
                const NormState<T>& norm = before->norm;
                const std::ptrdiff_t at = slab.image * image_ + b * plane_;
                double* sums = before->partial.at(slab.index, b);
                std::fill_n(sums, 2 * lanes_, 0.0);
                const int c = b * lanes_;
                k_.depthwise_grad_norm(conv, dd, weight, before->output + at, norm.mean + c, norm.scale + c,
                                       norm.shift + c, rows, before->grad + at, sums);
            } else if (cell_.wants(edge_.source)) {
                const std::ptrdiff_t plane = b * cell_.plane_size(edge_.source);
                k_.depthwise_grad_relu(conv, dd, weight, source_image(slab.image) + plane, rows,
                                       cell_.grad(edge_.source, slab.image) + plane);
            }
        }
    }

    // From dd to the gradient of the source, for one slab of that.
    void resize_back(const StageScratch& own, const Slab& slab, const Thread& thread) const {
        if (!cell_.wants(edge_.source)) return;
        const std::ptrdiff_t padded = cell_.sizes[edge_.target].w + 2 * cell_.graph.pad;
        const Blocks<T> dd = padded_rows(own.stage, {0, cell_.sizes[edge_.target].h}, dd_planes(slab, thread));
        for (int b = 0; b < dd.count; ++b)
            k_.resample_grad(cell_.resampling(edge_), dd[b], padded * lanes_, cell_.rows(edge_.source, slab),
                             thread.pool, cell_.grad(edge_.source, slab.image) + b * cell_.plane_size(edge_.source));
    }

    Backward<T>& cell_;
    const Edge& edge_;
    const EdgeBackWeights<T>& weights_;
    const Kernels<T>& k_;
    const int lanes_;
    const std::ptrdiff_t image_, plane_;             // sizes of the target's
    std::vector<std::vector<StageScratch>> stages_;  // by candidate
};

}  // namespace fastnas
