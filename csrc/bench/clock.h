// How long a piece of work takes.
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

namespace fastnas {

constexpr int kSamples = 7;

template <class Run>
double seconds_of(Run run, long count) {
    const auto start = std::chrono::steady_clock::now();
    for (long i = 0; i < count; ++i) run();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Seconds that run() takes, in several samples in ascending order, of about `budget` seconds together.
template <class Run>
std::vector<double> sample(Run run, double budget) {
    long count = 1;
    while (seconds_of(run, count) < budget / (2 * kSamples)) count *= 2;
    std::vector<double> samples;
    for (int i = 0; i < kSamples; ++i) samples.push_back(seconds_of(run, count) / double(count));
    std::sort(samples.begin(), samples.end());
    return samples;
}

}  // namespace fastnas
