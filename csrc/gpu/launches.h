// Puts the launches of a plan one after the other, and what they read into one table.
#pragma once

#include <algorithm>
#include <cstring>

#include "rows.h"

namespace fastnas::gpu {

class Launches {
  public:
    Launches(const Rows& rows, const Tiling& tiling) : rows_(rows), tiling_(tiling) {}

    // What follows works on edges out of this state; sums by tiles are merged by launches of the same tile.
    void begin(int state) {
        int channels = 1;
        for (std::size_t j = 0; j < rows_.jobs.size(); ++j)
            if (rows_.origins[j] == state)
                channels = int(std::max({i64(channels), rows_.jobs[j].in_channels, rows_.jobs[j].out_channels}));
        tile_ = tiling_.pixels(channels);
    }

    void moments(const List& jobs) { over_jobs(kMoments, jobs, tiles(jobs)); }
    void norms(const List& jobs) { over_jobs(kNorms, jobs, 1); }
    void grad_sums(const List& jobs) { over_jobs(kGradSums, jobs, tiles(jobs)); }
    void coefficients(const List& jobs) { over_jobs(kCoefficients, jobs, 1); }
    // Every job's pixels are cut into so many parts.
    void stage_back(const List& jobs, int parts) { over_jobs(kStageBack, jobs, parts); }
    void apply(int state, const List& jobs, bool accumulate) {
        over_state(kApply, jobs, state);
        launches_.back().accumulate = accumulate;
    }
    void source_back(int state, const List& jobs) { over_state(kSourceBack, jobs, state); }
    void reduce(const std::vector<Reduction>& reductions) {
        if (reductions.empty()) return;
        Launch launch{};
        launch.kernel = kReduce;
        i64 largest = 0;
        for (const Reduction& r : reductions) largest = std::max(largest, r.size);
        launch.grid_x = int((largest + kReduceChunk - 1) / kReduceChunk);
        launch.grid_y = launch.count = int(reductions.size());
        launch.list = int(reductions_.size());
        reductions_.insert(reductions_.end(), reductions.begin(), reductions.end());
        launches_.push_back(launch);
    }
    // So many that the blocks fill a GPU, but none that has more weights of a channel than pixels: its ∂W would be more
    // than the activations that it reads.
    int parts(const List& jobs) const {
        i64 weights = 1;
        for (int j : jobs)
            weights = std::max(weights, rows_.jobs[j].out_channels + rows_.jobs[j].kernel * rows_.jobs[j].kernel);
        const i64 pixels = rows_.images * largest(jobs);
        const i64 wanted = tiling_.blocks / std::max<i64>(1, i64(jobs.size()));
        return int(std::max<i64>(1, std::min({wanted, pixels / weights, i64(tiles(jobs))})));
    }
    int tiles(const Job& job) const { return tiles(job.out_height * job.out_width, tile_); }
    // A list of jobs for the kernels to find, as a Job's `members`.
    int list(const List& jobs) {
        const int at = int(lists_.size());
        lists_.insert(lists_.end(), jobs.begin(), jobs.end());
        return at;
    }

    void store(Plan& plan) const {
        std::vector<Job> jobs = rows_.jobs;
        const i64 states = i64(jobs.size()) * columns<Job>();
        const i64 lists = states + i64(rows_.states.size()) * columns<State>();
        const i64 reductions = lists + i64(lists_.size());
        for (Job& job : jobs)
            if (job.member_count) job.members += lists;
        append(plan.table, jobs);
        append(plan.table, rows_.states);
        plan.table.insert(plan.table.end(), lists_.begin(), lists_.end());
        append(plan.table, reductions_);
        plan.jobs = int(jobs.size());
        for (Launch launch : launches_) {
            launch.list = launch.kernel == kReduce ? int(reductions + launch.list * columns<Reduction>())
                                                   : int(lists + launch.list);
            launch.state = int(states + launch.state * columns<State>());
            launch.images = rows_.images;
            launch.channels = rows_.graph.statistics;
            plan.launches.push_back(launch);
        }
    }

  private:
    template <class Row>
    static constexpr i64 columns() {
        return sizeof(Row) / sizeof(i64);
    }
    template <class Row>
    static void append(std::vector<i64>& table, const std::vector<Row>& rows) {
        const std::size_t at = table.size();
        table.resize(at + rows.size() * columns<Row>());
        if (!rows.empty()) std::memcpy(table.data() + at, rows.data(), rows.size() * sizeof(Row));
    }

    int tiles(i64 pixels, int tile) const { return int((pixels * rows_.images + tile - 1) / tile); }
    int tiles(const List& jobs) const { return tiles(largest(jobs), tile_); }
    // Pixels of the largest result.
    i64 largest(const List& jobs) const {
        i64 pixels = 0;
        for (int j : jobs) pixels = std::max(pixels, rows_.jobs[j].out_height * rows_.jobs[j].out_width);
        return pixels;
    }
    Launch on(Kernel kernel, const List& jobs) {
        Launch launch{};
        launch.kernel = kernel;
        launch.list = list(jobs);
        launch.count = launch.grid_y = int(jobs.size());
        launch.tile = tile_;
        for (int j : jobs) {
            launch.in_channels = std::max(launch.in_channels, int(rows_.jobs[j].in_channels));
            launch.out_channels = std::max(launch.out_channels, int(rows_.jobs[j].out_channels));
            const bool computed = kernel != kApply || rows_.jobs[j].output.base < 0;
            launch.resample |= computed && rows_.jobs[j].resample;
        }
        return launch;
    }
    void over_state(Kernel kernel, const List& jobs, int state) {
        Launch launch = on(kernel, jobs);
        const State& target = rows_.states[state];
        launch.state = state;
        launch.in_channels = std::max(launch.in_channels, int(target.channels));
        launch.out_channels = std::max(launch.out_channels, int(target.channels));
        launch.tile = tiling_.pixels(std::max(launch.in_channels, launch.out_channels));
        launch.grid_x = tiles(target.height * target.width, launch.tile);
        launch.grid_y = 1;
        launches_.push_back(launch);
    }
    void over_jobs(Kernel kernel, const List& jobs, int grid_x) {
        if (jobs.empty()) return;
        launches_.push_back(on(kernel, jobs));
        launches_.back().grid_x = grid_x;
    }

    const Rows& rows_;
    const Tiling& tiling_;
    int tile_ = 1;
    std::vector<Launch> launches_;
    List lists_;
    std::vector<Reduction> reductions_;
};

}  // namespace fastnas::gpu
