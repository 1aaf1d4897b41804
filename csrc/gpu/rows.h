// The rows of a plan's tables: every stage of every candidate, and every state, with the places of all they read and
// write. plan.cpp says in which order kernels work on them.
#pragma once

#include <algorithm>
#include <map>
#include <vector>

#include "plan.h"

namespace fastnas::gpu {

using List = std::vector<int>;

constexpr View kNowhere{-1, 0, 0};

// Numbers of the jobs of the edges that leave a state.
struct Leaving {
    int state;
    std::vector<List> levels;  // convolutions by stage
    List last, hidden;         // those whose result is weighted by α, and the others
    List leaders, pools;       // one job for all pools of a kind and stride, and those of the edges
    List identities;
    std::vector<int> targets;  // of the edges, each once, in order
};

// Hands out elements one after the other.
class Cursor {
  public:
    i64 take(i64 size) {
        const i64 at = next_;
        next_ += size;
        most_ = std::max(most_, next_);
        return at;
    }
    i64 mark() const { return next_; }
    void release(i64 mark) { next_ = mark; }  // what was taken since
    i64 most() const { return most_; }

  private:
    i64 next_ = 0, most_ = 0;
};

struct Rows {
    Rows(const Graph& graph, int images, const std::vector<Size>& inputs, Memory memory);

    const Graph& graph;
    const int images;
    const Memory memory;
    std::vector<Job> jobs;
    std::vector<State> states;
    std::vector<Leaving> sources;       // in the order in which forward comes to them
    std::vector<List> entering;         // jobs whose o a state adds up
    std::vector<int> origins, targets;  // of every job's edge
    std::vector<int> last_origins;      // of every state, the source that forward comes to last
    std::map<int, List> pool_members;   // by leader
    std::vector<List> alphas;           // the jobs of every candidate that α weighs
    std::vector<i64> parameters;        // of every parameter, in params and in grads
    i64 alpha = 0, grads = 0;           // place of α in params, elements of grads
    i64 grad_inputs = 0;
    Cursor saved, scratch, floats;

    View dense(Base base, Cursor& cursor, i64 channels, i64 height, i64 width) {
        const i64 image = channels * height * width;
        return {base, cursor.take(images * image), image};
    }
    // In scratch, as large as u or d of a job.
    View scratch_for(const Job& job, i64 channels) {
        return dense(kScratch, scratch, channels, job.out_height, job.out_width);
    }

  private:
    void place_parameters();
    void place_states(const std::vector<Size>& inputs);
    Leaving& leaving(int state);
    void add(const Edge& edge);
    void add_stages(const Edge& edge, const Candidate& candidate, Leaving& from);
    void add_plain(const Edge& edge, const Candidate& candidate, Leaving& from);
    int append(const Edge& edge, const Job& job);
    int append_weighed(const Edge& edge, const Candidate& candidate, const Job& job);
    int leader(const Edge& edge, Kind kind, Leaving& from);
    Job plain(const Edge& edge, Kind kind) const;
    void set_norm(Job& job, const Norm& norm);
    View stage_output(const Job& job);

    std::vector<i64> running_places_;
};

}  // namespace fastnas::gpu
