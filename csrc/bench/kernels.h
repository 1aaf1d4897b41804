// The kernels of cpu/kernels.h, each with data of its own to run on.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "../cpu/arena.h"
#include "../cpu/kernels.h"

namespace fastnas {

// A kernel on all channels of one float32 image. `flops` are multiplications, additions and divisions; `bytes` what has
// to be read and written once. Lanes beyond the last channel count as nothing, taps on padding count as taps.
struct KernelCase {
    std::string name;
    double flops, bytes;
    std::function<void()> run;
};

// The kernels at one size of image, `channels` × `size` × `size`, and one stride; those without a stride are left out
// at stride 2.
class KernelCases {
  public:
    KernelCases(int channels, int size, int stride);
    const std::vector<KernelCase>& all() const { return cases_; }
    // Median seconds of a run.
    double seconds(const std::string& name, double budget) const;

  private:
    void layout(Arena& arena);
    void add_depthwise(int kernel, int dilation);
    void add_pointwise();
    void add_norms();
    void add_planes();
    void add_pools();
    void add(std::string name, double flops, double values, std::function<void()> run);

    // run(block) for every block of channels.
    template <class Run>
    std::function<void()> each_block(Run run) const;
    float* block(float* image, int b) const { return image + b * plane_; }
    Blocks<float> blocks(float* image) const { return {image, blocks_, plane_}; }

    const Kernels<float>& k_;
    const int channels_, blocks_, stride_;
    const Size in_, out_;
    const std::ptrdiff_t plane_;  // elements that hold any plane, padded or not
    std::vector<float*> images_;  // filled with numbers in [-1, 1)
    float *weight_, *channel_, *matrix_;
    double* sums_;
    std::vector<KernelCase> cases_;
    const Scratch scratch_;
};

}  // namespace fastnas
