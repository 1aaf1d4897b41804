// Where the pixels of a bilinear resampling lie, with weights rounded as PyTorch rounds them:
// F.interpolate(mode="bilinear", align_corners=True) puts the corners' pixels on each other.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels.h"

namespace fastnas {

template <class T>
class AxisTaps {
  public:
    AxisTaps(int in, int out) : starts_(in + 1) {
        const T step = out > 1 ? T(in - 1) / T(out - 1) : T(0);
        for (int i = 0; i < out; ++i) {
            const T at = in == out ? T(i) : step * T(i);
            // PyTorch rounds down in single precision for either type.
            const int first = std::min(int(std::floor(float(at))), in - 1);
            const int second = in == out ? first : std::min(first + 1, in - 1);
            const T share = std::clamp(at - T(first), T(0), T(1));
            taps_.push_back({first, 1 - share});
            taps_.push_back({second, share});
        }
        list_readers();
    }

    Axis<T> view() const { return {taps_.data(), readers_.data(), starts_.data()}; }

  private:
    void list_readers() {
        for (const Tap<T>& tap : taps_) ++starts_[tap.at + 1];
        std::partial_sum(starts_.begin(), starts_.end(), starts_.begin());
        std::vector<int> next = starts_;
        readers_.resize(taps_.size());
        for (int i = 0; i < int(taps_.size()); ++i) readers_[next[taps_[i].at]++] = {i / 2, taps_[i].weight};
    }

    std::vector<Tap<T>> taps_, readers_;
    std::vector<int> starts_;
};

template <class T>
class ResamplingTaps {
  public:
    ResamplingTaps(Size in, Size out) : in_(in), out_(out), rows_(in.h, out.h), columns_(in.w, out.w) {}
    Resampling<T> view() const { return {in_, out_, rows_.view(), columns_.view()}; }

  private:
    Size in_, out_;
    AxisTaps<T> rows_, columns_;
};

}  // namespace fastnas
