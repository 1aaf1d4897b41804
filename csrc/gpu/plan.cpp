#include "plan.h"

#include <set>

#include "launches.h"
#include "rows.h"

namespace fastnas::gpu {

int Tiling::pixels(int channels) const {
    int result = least;
    while (result < most && 2 * result * channels <= elements) result *= 2;
    return result;
}

namespace {

List operator+(List a, const List& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

template <class Wanted>
List filter(const List& jobs, Wanted wanted) {
    List result;
    std::copy_if(jobs.begin(), jobs.end(), std::back_inserter(result), wanted);
    return result;
}

// Outputs of stages that are not saved.
void place_hidden(Rows& rows, const Leaving& from) {
    for (int j : from.hidden)
        if (rows.jobs[j].output.base < 0)
            rows.jobs[j].output = rows.scratch_for(rows.jobs[j], rows.jobs[j].out_channels);
    for (const List& level : from.levels)
        for (int j : level)
            if (rows.jobs[j].before >= 0) rows.jobs[j].input = rows.jobs[rows.jobs[j].before].output;
}

class Forward {
  public:
    Forward(Rows& rows, const Tiling& tiling) : rows_(rows), launches_(rows, tiling), applied_(rows.states.size()) {}

    const Launches& run() {
        for (const Leaving& from : rows_.sources) {
            const i64 scratch = rows_.scratch.mark(), floats = rows_.floats.mark();
            launches_.begin(from.state);
            place_hidden(rows_, from);
            place_moments(from);
            place_alone(from);
            for (std::size_t level = 0; level < std::max<std::size_t>(1, from.levels.size()); ++level) {
                List computed = level < from.levels.size() ? from.levels[level] : List(), normed = computed;
                if (level == 0) computed = computed + from.leaders, normed = normed + from.pools;
                launches_.moments(filter(computed, [&](int j) { return looks_at(rows_.jobs[j]); }));
                launches_.norms(normed);
            }
            apply(from);
            rows_.scratch.release(scratch);
            rows_.floats.release(floats);
        }
        return launches_;
    }

  private:
    static bool looks_at(const Job& job) { return job.moments >= 0 || job.output.base >= 0; }

    void place_moments(const Leaving& from) {
        const auto take = [&](int j) {
            return rows_.floats.take(3 * i64(launches_.tiles(rows_.jobs[j])) * rows_.jobs[j].out_channels);
        };
        for (const List& level : from.levels)
            for (int j : level)
                if (rows_.jobs[j].batch) rows_.jobs[j].moments = take(j);
        for (int leader : from.leaders)
            for (int j : rows_.pool_members.at(leader)) {
                if (!rows_.jobs[j].batch) continue;
                if (rows_.jobs[leader].moments < 0) rows_.jobs[leader].moments = take(leader);
                rows_.jobs[j].moments = rows_.jobs[leader].moments;
            }
    }

    // What is all of a state is kept there until it is normed.
    void place_alone(const Leaving& from) {
        for (int j : from.last) {
            Job& job = rows_.jobs[j];
            const State& target = rows_.states[rows_.targets[j]];
            i64 channels = 0;
            for (int other : rows_.entering[rows_.targets[j]]) channels += rows_.jobs[other].out_channels;
            if (!job.batch || channels != target.channels) continue;
            job.output = target.value;
            job.output.offset += job.first * job.out_height * job.out_width;
        }
    }

    // With "fast" a state is written once, when all that it adds up is known; otherwise what has been computed for this
    // source does not last, and is added to it.
    void apply(const Leaving& from) {
        for (int target : from.targets) {
            const List& all = rows_.entering[target];
            if (rows_.memory == Memory::fast) {
                if (from.state == rows_.last_origins[target]) launches_.apply(target, all, false);
                continue;
            }
            const List own = filter(all, [&](int j) { return rows_.origins[j] == from.state; });
            if (!own.empty() || !applied_[target]) launches_.apply(target, own, applied_[target]);
            applied_[target] = true;
        }
    }

    Rows& rows_;
    Launches launches_;
    std::vector<bool> applied_;
};

class Backward {
  public:
    Backward(Rows& rows, const Tiling& tiling, Wants wants) : rows_(rows), launches_(rows, tiling), wants_(wants) {
        for (int a = 0; a < rows_.graph.alphas; ++a)
            if (wants_.alpha && rows_.alphas[a].empty()) reductions_.push_back({0, 0, 0, 1, alpha_grad(a), 0});
    }

    const Launches& run() {
        place_state_grads();
        List norms;
        for (std::size_t j = 0; j < rows_.jobs.size(); ++j)
            if (rows_.jobs[j].norm >= 0) norms.push_back(int(j));
        launches_.norms(norms);
        for (auto from = rows_.sources.rbegin(); from != rows_.sources.rend(); ++from) {
            const i64 scratch = rows_.scratch.mark(), floats = rows_.floats.mark();
            source(*from);
            rows_.scratch.release(scratch);
            rows_.floats.release(floats);
        }
        for (int s = 0; wants_.inputs && s < rows_.graph.inputs; ++s)
            if (rows_.graph.leaving(s).empty()) launches_.source_back(s, {});
        return launches_;
    }

  private:
    bool wants(int state) const { return wants_.inputs || !rows_.graph.is_input(state); }
    i64 alpha_grad(int a) const { return rows_.grads - rows_.graph.alphas + a; }

    void place_state_grads() {
        for (std::size_t s = 0; s < rows_.states.size(); ++s) {
            State& state = rows_.states[s];
            if (rows_.graph.is_input(int(s))) continue;
            const bool given_only = state.given.base >= 0 && rows_.graph.leaving(int(s)).empty();
            if (given_only)
                state.grad = state.given;
            else if (state.value.base == kScratch)  // a forward's, which no backward reads
                state.grad = state.value;
            else
                state.grad = rows_.dense(kScratch, rows_.scratch, state.channels, state.height, state.width);
        }
        for (std::size_t s = 0; s < rows_.states.size(); ++s)
            if (!depends_on_value(int(s))) rows_.states[s].value = kNowhere;
    }

    // Whether a state's gradient does: by a ReLU or a pool. Where a stage resamples, ReLU comes after that.
    bool depends_on_value(int state) const {
        const auto from = std::find_if(rows_.sources.begin(), rows_.sources.end(),
                                       [=](const Leaving& l) { return l.state == state; });
        if (from == rows_.sources.end()) return false;
        const auto looks = [&](int j) { return !rows_.jobs[j].resample; };
        return !from->leaders.empty() ||
               (!from->levels.empty() && std::any_of(from->levels[0].begin(), from->levels[0].end(), looks));
    }

    void source(const Leaving& from) {
        launches_.begin(from.state);
        place_hidden(rows_, from);
        if (rows_.memory != Memory::fast)
            for (const List& level : from.levels)
                launches_.moments(filter(level, [&](int j) { return rows_.jobs[j].output.base >= 0; }));
        const List weighed = from.last + from.pools +
                             filter(from.identities, [&](int j) { return wants_.alpha && rows_.jobs[j].alpha >= 0; });
        for (int j : weighed + from.identities) {
            Job& job = rows_.jobs[j];
            job.grad = rows_.states[rows_.targets[j]].grad;
            job.grad.offset += job.first * job.out_height * job.out_width;
        }
        place_alpha_sums(weighed);
        for (int j : weighed) place_sums(rows_.jobs[j], launches_.tiles(rows_.jobs[j]));
        launches_.grad_sums(weighed);
        launches_.coefficients(weighed);
        list_members(from);
        for (std::size_t level = from.levels.size(); level-- > 0;) stages_back(from, from.levels[level], level == 0);
        if (wants(from.state) && !is_alone(from))
            launches_.source_back(from.state,
                                  (from.levels.empty() ? List() : from.levels[0]) + from.leaders + from.identities);
        reduce();
    }

    // What several edges share is added up source by source, and within a source, where two may not write to one place
    // in the same launch, one after the other.
    void reduce() {
        while (!reductions_.empty()) {
            std::vector<Reduction> now, later;
            std::set<i64> places;
            for (Reduction r : reductions_) {
                if (!places.insert(r.place).second) {
                    later.push_back(r);
                    continue;
                }
                r.accumulate = !written_.insert(r.place).second;
                now.push_back(r);
            }
            launches_.reduce(now);
            reductions_ = later;
        }
    }

    // Whether one 1×1 convolution is all that reads a state: its ∂d becomes the state's gradient.
    bool is_alone(const Leaving& from) const {
        if (from.levels.empty() || from.levels[0].size() != 1 || from.leaders.size() + from.identities.size() > 0)
            return false;
        const Job& job = rows_.jobs[from.levels[0][0]];
        return job.depthwise < 0 && job.stride == 1 && !job.resample && rows_.states[from.state].given.base < 0;
    }

    void place_alpha_sums(const List& weighed) {
        if (!wants_.alpha) return;
        for (int a = 0; a < rows_.graph.alphas; ++a) {
            const List jobs = filter(
                rows_.alphas[a], [&](int j) { return std::find(weighed.begin(), weighed.end(), j) != weighed.end(); });
            if (jobs.empty()) continue;
            const i64 count = i64(jobs.size()), at = rows_.floats.take(count);
            for (i64 i = 0; i < count; ++i) rows_.jobs[jobs[i]].alpha_sum = at + i;
            reductions_.push_back({at, count, 1, 1, alpha_grad(a), 0});
        }
    }

    // What batch norm's derivative needs of a job, and gives.
    void place_sums(Job& job, i64 count) {
        job.sums_count = count;
        job.sums = rows_.floats.take(2 * count * job.out_channels);
        if (job.kind == kIdentity) return;
        const i64 channels = job.out_channels;
        job.coefficients = rows_.floats.take(3 * channels);
        if (!wants_.parameters || job.gamma < 0) return;
        job.affine_sums = rows_.floats.take(2 * channels);
        reductions_.push_back({job.affine_sums, 1, 0, channels, job.gamma, 0});
        reductions_.push_back({job.affine_sums + channels, 1, 0, channels, job.beta, 0});
    }

    void list_members(const Leaving& from) {
        for (int leader : from.leaders) {
            const List& members = rows_.pool_members.at(leader);
            rows_.jobs[leader].members = launches_.list(members);
            rows_.jobs[leader].member_count = i64(members.size());
        }
    }

    void stages_back(const Leaving& from, const List& jobs, bool first) {
        const bool store = !first || wants(from.state);
        if (!store && !wants_.parameters) return;
        const int parts = launches_.parts(jobs);
        List before;
        for (int j : jobs) {
            Job& job = rows_.jobs[j];
            if (store && first && is_alone(from)) {
                job.grad_gathered = rows_.states[from.state].grad;
                job.rectify = 1;
            } else if (store) {
                job.grad_gathered = rows_.scratch_for(job, job.in_channels);
                job.rectify = job.resample;
            }
            if (wants_.parameters) place_weight_sums(job, parts);
            if (job.before < 0) continue;
            before.push_back(job.before);
            place_sums(rows_.jobs[job.before], parts);
        }
        launches_.stage_back(jobs, parts);
        launches_.coefficients(before);
    }

    void place_weight_sums(Job& job, i64 parts) {
        const i64 pointwise = job.out_channels * job.in_channels;
        const i64 depthwise = job.depthwise < 0 ? 0 : job.in_channels * job.kernel * job.kernel;
        const i64 stride = pointwise + depthwise;
        job.weight_sums = rows_.floats.take(parts * stride);
        reductions_.push_back({job.weight_sums, parts, stride, pointwise, job.pointwise, 0});
        if (depthwise) reductions_.push_back({job.weight_sums + pointwise, parts, stride, depthwise, job.depthwise, 0});
    }

    Rows& rows_;
    Launches launches_;
    const Wants wants_;
    std::vector<Reduction> reductions_;
    std::set<i64> written_;  // places of grads
};

Plan finish(const Rows& rows, const Launches& launches) {
    Plan plan;
    launches.store(plan);
    plan.saved = rows.saved.most();
    plan.scratch = rows.scratch.most();
    plan.floats = rows.floats.most();
    plan.grad_inputs = rows.grad_inputs;
    plan.grads = rows.grads;
    return plan;
}

}  // namespace

Plan plan_forward(const Graph& graph, int images, const std::vector<Size>& inputs, Memory memory,
                  const Tiling& tiling) {
    Rows rows(graph, images, inputs, memory);
    Forward forward(rows, tiling);
    return finish(rows, forward.run());
}

Plan plan_backward(const Graph& graph, int images, const std::vector<Size>& inputs, Memory memory, const Tiling& tiling,
                   Wants wants) {
    Rows rows(graph, images, inputs, memory);
    Backward backward(rows, tiling, wants);
    return finish(rows, backward.run());
}

}  // namespace fastnas::gpu
