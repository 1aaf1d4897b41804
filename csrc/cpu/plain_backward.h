// Backward of the candidates without stages, pools and identities, for all edges out of a source at once: edges of one
// stride share a pool, so its gradient is one sum over them, which goes back through the pool once.
#pragma once

#include "backward.h"

namespace fastnas {

template <class T>
class PlainBackward {
    using Pool = Candidate::Pool;
    using Thread = BackwardThread<T>;

  public:
    PlainBackward(Backward<T>& cell, int source) : cell_(cell), source_(source) {}

    void layout(Arena& arena) {
        members_.clear();
        sums_.clear();
        zeros_ = arena.take<T>(cell_.padded(channels()));
        for (const Edge* edge : cell_.graph.leaving(source_))
            for (const Candidate& candidate : edge->candidates) {
                if (candidate.pool == Pool::none && !candidate.identity) continue;
                members_.push_back({*edge, candidate, {}});
                members_.back().own.layout(cell_, edge->target, arena);
            }
        for (int stride : {1, 2})
            for (Pool pool : {Pool::max, Pool::avg})
                if (const Edge* edge = cell_.graph.leaving(source_, stride, pool)) {
                    sums_.push_back({stride, pool, edge->target, {}, nullptr});
                    sums_.back().norm_grad.layout(arena, cell_.padded(channels()));
                }
    }

    void set_norms() {
        std::fill_n(zeros_, cell_.padded(channels()), T(0));
        for (Member& member : members_)
            if (member.candidate.identity)
                member.own.norm.set_identity(cell_.call.weight(member.candidate), cell_.padded(channels()));
            else
                cell_.norm_state(member.candidate.pool_norm, 1, member.own.norm);
    }

    // Σ g·(u - mean) of each, for one slab.
    void products(const Slab& slab) const {
        for (const Member& member : members_) {
            const auto& [edge, candidate, own] = member;
            if (!has_products(candidate)) continue;
            const T* u = candidate.identity ? cell_.x : cell_.pooled.of(edge.stride, candidate.pool).values;
            const Rows rows = cell_.rows(edge.target, slab);
            own.partial.clear(slab.index);
            for (int b = 0; b < own.partial.blocks; ++b) {
                const std::ptrdiff_t at = this->at(edge.target, slab, b, rows);
                cell_.k.product(cell_.grads[edge.target] + at, u + at, own.norm.mean + b * cell_.lanes,
                                cell_.pixels(edge.target, rows), own.partial.at(slab.index, b));
            }
        }
    }

    // When the products are complete: ∂α, ∂γ, ∂β, and each pool's gradient Σ a·g + b·(u - mean) + c.
    void coefficients() {
        for (Member& member : members_) {
            const auto& [edge, candidate, own] = member;
            if (has_products(candidate)) own.partial.add_up();
            if (!candidate.identity)
                cell_.last_norm_gradients(candidate, candidate.pool_norm, own, edge.target);
            else if (has_products(candidate))
                for (int c = 0; c < channels(); ++c) cell_.alpha_grad[candidate.alpha] += own.partial.first(c);
        }
        for (PoolSum& sum : sums_) {
            sum.mean = nullptr;
            for (T* p : {sum.norm_grad.b, sum.norm_grad.c}) std::fill_n(p, cell_.padded(channels()), T(0));
            for (const Member& member : members_) {
                // With running statistics ∂u = a·g; not to look at u keeps its NaN and ±inf out of the gradient, as
                // PyTorch does.
                if (!sum.has(member) || !member.candidate.pool_norm.batch()) continue;
                sum.mean = member.own.norm.mean;  // the same for all: it is the batch's
                for (int c = 0; c < channels(); ++c) {
                    sum.norm_grad.b[c] += member.own.norm_grad.b[c];
                    sum.norm_grad.c[c] += member.own.norm_grad.c[c];
                }
            }
        }
    }

    // To the gradient of the source, for one slab.
    void back(const Slab& slab, const Thread& thread) const {
        const Rows rows = cell_.rows(source_, slab);
        for (int b = 0; b < cell_.blocks(channels()); ++b) {
            identities_back(slab, b, rows);
            for (const PoolSum& sum : sums_) {
                T* to = cell_.grad(source_, slab.image) + b * cell_.plane_size(source_);
                const T* x = cell_.source_image(source_, slab.image) + b * cell_.plane_size(source_);
                const Size in = cell_.sizes[source_], out = cell_.sizes[sum.target];
                pool_gradient(sum, slab, b, windows_of(rows, sum.stride, out.h), thread.pool_grad);
                if (sum.pool == Pool::max)
                    cell_.k.max_pool_grad(thread.pool_grad, x, in, sum.stride, out, rows, thread.pool, to);
                else
                    cell_.k.avg_pool_grad(thread.pool_grad, in, sum.stride, out, rows, thread.pool, to);
            }
        }
    }

  private:
    struct Member {
        const Edge& edge;
        const Candidate& candidate;
        NormScratch<T> own;
    };

    // A pool with the edges of one stride.
    struct PoolSum {
        int stride;
        Pool pool;
        int target;             // one of them, for its size
        NormGrad<T> norm_grad;  // b and c, added up
        const T* mean;          // null where no norm uses the batch's statistics

        bool has(const Member& member) const { return member.edge.stride == stride && member.candidate.pool == pool; }
    };

    int channels() const { return cell_.graph.channels[source_]; }

    // Whether Σ g·(u - mean) means anything: for an identity it is ∂α.
    bool has_products(const Candidate& candidate) const {
        return !candidate.identity || (cell_.to.alpha && candidate.alpha >= 0);
    }

    // Where rows of block b of the slab's image start in a state.
    std::ptrdiff_t at(int state, const Slab& slab, int b, Rows rows) const {
        return slab.image * cell_.image_size(state) + b * cell_.plane_size(state) + cell_.offset(state, rows);
    }

    Term<T> gradient_term(const Member& member, std::ptrdiff_t at, int b, const T* scale) const {
        const int c = b * cell_.lanes;
        return {cell_.grads[member.edge.target] + at, zeros_ + c, scale + c, zeros_ + c};
    }

    void identities_back(const Slab& slab, int b, Rows rows) const {
        const std::ptrdiff_t at = this->at(source_, slab, b, rows);
        std::vector<Term<T>> terms;
        for (const Member& member : members_)
            if (member.candidate.identity) terms.push_back(gradient_term(member, at, b, member.own.norm.scale));
        cell_.k.accumulate(terms.data(), int(terms.size()), cell_.pixels(source_, rows), true,
                           cell_.grads[source_] + at);
    }

    // The given rows of it, into a plane.
    void pool_gradient(const PoolSum& sum, const Slab& slab, int b, Rows rows, T* plane) const {
        const std::ptrdiff_t at = this->at(sum.target, slab, b, rows);
        std::vector<Term<T>> terms;
        for (const Member& member : members_)
            if (sum.has(member)) terms.push_back(gradient_term(member, at, b, member.own.norm_grad.a));
        const int c = b * cell_.lanes;
        const T* u = cell_.pooled.of(sum.stride, sum.pool).values + at;
        if (sum.mean) terms.push_back({u, sum.mean + c, sum.norm_grad.b + c, sum.norm_grad.c + c});
        cell_.k.accumulate(terms.data(), int(terms.size()), cell_.pixels(sum.target, rows), false,
                           plane + cell_.offset(sum.target, rows));
    }

    Backward<T>& cell_;
    const int source_;
    T* zeros_ = nullptr;
    std::vector<Member> members_;
    std::vector<PoolSum> sums_;
};

}  // namespace fastnas
