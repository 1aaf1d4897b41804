#include "rows.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace fastnas::gpu {

namespace {

i64 bits(double value) {
    i64 result;
    static_assert(sizeof result == sizeof value, "a table's column holds a double");
    std::memcpy(&result, &value, sizeof result);
    return result;
}

}  // namespace

Rows::Rows(const Graph& graph_, int images_, const std::vector<Size>& inputs, Memory memory_)
    : graph(graph_), images(images_), memory(memory_), entering(graph_.channels.size()), alphas(graph_.alphas) {
    place_parameters();
    place_states(inputs);
    for (const Edge& edge : graph.edges) add(edge);
    last_origins.resize(states.size(), -1);
    for (const Leaving& from : sources)
        for (int target : from.targets) last_origins[target] = from.state;
}

void Rows::place_parameters() {
    const auto parameter = [this](int number, i64 size) {
        if (number < 0) return;
        if (int(parameters.size()) <= number) parameters.resize(number + 1);
        parameters[number] = size;
    };
    std::vector<i64> running_sizes;
    const auto norm = [&](const Norm& n) {
        parameter(n.gamma, n.channels);
        parameter(n.beta, n.channels);
        if (!n.batch()) running_sizes.insert(running_sizes.end(), 2, n.channels);
    };
    for (const Edge& edge : graph.edges)
        for (const Candidate& candidate : edge.candidates) {
            if (candidate.pool != Candidate::Pool::none) norm(candidate.pool_norm);
            for (const Stage& stage : candidate.stages) {
                parameter(stage.depthwise, i64(stage.in_channels) * stage.kernel * stage.kernel);
                const i64 size = i64(stage.out_channels) * stage.in_channels / stage.gathers();
                for (int i = 0; i < stage.gathers(); ++i) parameter(stage.pointwise + i, size);
                norm(stage.norm);
            }
        }
    i64 parameters_size = 0;
    for (i64& place : parameters) {
        const i64 size = place;
        place = parameters_size;
        parameters_size += size;
    }
    alpha = parameters_size;
    grads = parameters_size + graph.alphas;
    for (const i64 size : running_sizes) {
        running_places_.push_back(alpha);
        alpha += size;
    }
}

void Rows::place_states(const std::vector<Size>& inputs) {
    const std::vector<Size> sizes = graph.sizes(inputs);
    const bool packed = graph.inputs > kInputs;
    i64 out_channels = 0, given = 0;
    for (int state : graph.outputs) out_channels += graph.channels[state];
    for (std::size_t s = 0; s < sizes.size(); ++s) {
        const i64 channels = graph.channels[s], height = sizes[s].h, width = sizes[s].w;
        State state{channels, height, width, kNowhere, kNowhere, kNowhere};
        const i64 image = channels * height * width;
        if (graph.is_input(int(s))) {
            state.value = {packed ? kInput0 : Base(kInput0 + int(s)), packed ? given : 0, image};
            state.grad = {kGradInput, given, image};
            given += images * image;
        } else if (!graph.is_output(int(s))) {
            state.value = graph.is_read(int(s)) ? dense(kSaved, saved, channels, height, width)
                                                : dense(kScratch, scratch, channels, height, width);
        }
        states.push_back(state);
    }
    grad_inputs = given;
    i64 channel = 0;
    for (int s : graph.outputs) {
        if (states[s].value.base >= 0) throw std::invalid_argument("a cell's output states must be distinct");
        State& state = states[s];
        const i64 offset = channel * state.height * state.width, image = out_channels * state.height * state.width;
        state.value = {kOut, offset, image};
        state.given = {kGradOut, offset, image};
        channel += state.channels;
    }
}

Leaving& Rows::leaving(int state) {
    const auto found = std::find_if(sources.begin(), sources.end(), [=](const Leaving& l) { return l.state == state; });
    if (found != sources.end()) return *found;
    sources.push_back({state, {}, {}, {}, {}, {}, {}, {}});
    return sources.back();
}

Job Rows::plain(const Edge& edge, Kind kind) const {
    const State &from = states[edge.source], &to = states[edge.target];
    Job job{};
    job.kind = kind;
    job.kernel = job.dilation = 1;
    job.stride = edge.stride;
    if (kind == kMaxPool || kind == kAvgPool) job.kernel = 3, job.start = -1;
    job.in_channels = from.channels;
    job.in_height = from.height;
    job.in_width = from.width;
    job.out_channels = to.channels;
    job.out_height = to.height;
    job.out_width = to.width;
    job.input = from.value;
    job.output = job.grad = job.grad_gathered = kNowhere;
    for (i64* place : {&job.input_norm, &job.depthwise, &job.pointwise, &job.moments, &job.norm, &job.gamma, &job.beta,
                       &job.alpha, &job.running, &job.statistics, &job.sums, &job.coefficients, &job.affine_sums,
                       &job.alpha_sum, &job.weight_sums, &job.before, &job.next})
        *place = -1;
    return job;
}

// For the channels of it that the job computes.
void Rows::set_norm(Job& job, const Norm& norm) {
    const bool half = job.out_channels != norm.channels;
    const i64 first = half ? job.first : 0;
    job.norm = floats.take(4 * job.out_channels);
    job.eps = bits(norm.eps);
    job.batch = norm.batch();
    if (norm.gamma >= 0) {
        job.gamma = parameters[norm.gamma] + first;
        job.beta = parameters[norm.beta] + first;
    }
    if (norm.batch()) {
        job.statistics = norm.statistics + first;
    } else {
        job.running = running_places_[norm.running] + first;
        job.running_stride = running_places_[norm.running + 1] - running_places_[norm.running];
    }
}

int Rows::append(const Edge& edge, const Job& job) {
    jobs.push_back(job);
    origins.push_back(edge.source);
    targets.push_back(edge.target);
    return int(jobs.size()) - 1;
}

// One whose result enters the edge's target.
int Rows::append_weighed(const Edge& edge, const Candidate& candidate, const Job& job) {
    const int number = append(edge, job);
    entering[edge.target].push_back(number);
    if (candidate.alpha >= 0) {
        jobs.back().alpha = alpha + candidate.alpha;
        alphas[candidate.alpha].push_back(number);
    }
    return number;
}

void Rows::add(const Edge& edge) {
    Leaving& from = leaving(edge.source);
    if (std::find(from.targets.begin(), from.targets.end(), edge.target) == from.targets.end())
        from.targets.push_back(edge.target);
    for (const Candidate& candidate : edge.candidates)
        candidate.stages.empty() ? add_plain(edge, candidate, from) : add_stages(edge, candidate, from);
}

void Rows::add_stages(const Edge& edge, const Candidate& candidate, Leaving& from) {
    int before = -1;
    for (std::size_t s = 0; s < candidate.stages.size(); ++s) {
        const Stage& stage = candidate.stages[s];
        const bool last = s + 1 == candidate.stages.size();
        const bool resizes = stage.kind == Stage::Kind::resize;
        if ((resizes || stage.gathers() > 1) && candidate.stages.size() > 1)
            throw std::invalid_argument("on a GPU a resize or a factorised reduce must be a candidate's only stage");
        Job job = plain(edge, kConvolution);
        job.kernel = stage.kernel;
        job.dilation = stage.dilation;
        job.start = -i64(stage.dilation) * (stage.kernel / 2);
        if (stage.depthwise >= 0) job.depthwise = parameters[stage.depthwise];
        if (resizes) {
            job.stride = 1;
            job.resample = job.in_height != job.out_height || job.in_width != job.out_width;
        }
        if (before >= 0) {
            const Job& previous = jobs[before];
            job.stride = 1;
            job.in_channels = previous.out_channels;
            job.in_height = previous.out_height;
            job.in_width = previous.out_width;
            job.input = previous.output;
            job.input_norm = previous.norm;
            job.before = before;
        }
        if (!last) job.output = stage_output(job);
        if (from.levels.size() <= s) from.levels.resize(s + 1);
        job.out_channels /= stage.gathers();
        for (int i = 0; i < stage.gathers(); ++i) {
            Job part = job;
            part.first = i * job.out_channels;
            part.start += i;
            part.pointwise = parameters[stage.pointwise + i];
            set_norm(part, stage.norm);
            const int number = last ? append_weighed(edge, candidate, part) : append(edge, part);
            if (job.before >= 0) jobs[job.before].next = number;
            before = number;
            from.levels[s].push_back(before);
            (last ? from.last : from.hidden).push_back(before);
        }
    }
}

void Rows::add_plain(const Edge& edge, const Candidate& candidate, Leaving& from) {
    using Pool = Candidate::Pool;
    if (candidate.identity) {
        from.identities.push_back(append_weighed(edge, candidate, plain(edge, kIdentity)));
    } else if (candidate.pool != Pool::none) {
        Job job = plain(edge, candidate.pool == Pool::max ? kMaxPool : kAvgPool);
        set_norm(job, candidate.pool_norm);
        const int number = append_weighed(edge, candidate, job);
        from.pools.push_back(number);
        pool_members[leader(edge, Kind(job.kind), from)].push_back(number);
    }
}

int Rows::leader(const Edge& edge, Kind kind, Leaving& from) {
    for (int j : from.leaders)
        if (jobs[j].kind == kind && jobs[j].stride == edge.stride) return j;
    from.leaders.push_back(append(edge, plain(edge, kind)));
    return from.leaders.back();
}

View Rows::stage_output(const Job& job) {
    const bool keep = memory == Memory::fast;
    return keep ? dense(kSaved, saved, job.out_channels, job.out_height, job.out_width) : kNowhere;
}

}  // namespace fastnas::gpu
