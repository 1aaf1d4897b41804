#include "kernels.h"

#include <stdexcept>
#include <utility>

#include "../cpu/packing.h"
#include "clock.h"

namespace fastnas {

namespace {

constexpr int kPad = 4;    // of a DARTS cell's planes: 5×5 with dilation 2
constexpr int kTerms = 6;  // that an edge adds to its node: two pools and four convolutions
constexpr int kMaxTaps = 25;

// Numbers in [-1, 1) without order, so that comparisons go either way.
void fill(float* to, std::size_t count) {
    unsigned state = 1;
    for (std::size_t i = 0; i < count; ++i) {
        state = state * 1664525u + 1013904223u;
        to[i] = float(state >> 8) / float(1 << 23) - 1;
    }
}

}  // namespace

KernelCases::KernelCases(int channels, int size, int stride)
    : k_(kernels<float>(channels)),
      channels_(channels),
      blocks_(blocks_of(channels, k_.lanes)),
      stride_(stride),
      in_{size, size},
      out_{(size + stride - 1) / stride, (size + stride - 1) / stride},
      plane_(std::ptrdiff_t(size) * (size + 2 * kPad) * k_.lanes),
      images_(kTerms + 1),
      scratch_([this](Arena& arena) { layout(arena); }) {
    for (float* image : images_) fill(image, plane_ * blocks_);
    fill(weight_, kMaxTaps * k_.lanes);
    fill(channel_, k_.lanes * blocks_);
    fill(matrix_, std::size_t(k_.lanes) * blocks_ * k_.lanes * blocks_);
    for (auto [kernel, dilation] : {std::pair(3, 1), {5, 1}, {3, 2}, {5, 2}}) add_depthwise(kernel, dilation);
    if (stride == 1) add_pointwise();
    if (stride == 1) add_norms();
    if (stride == 1) add_planes();
    add_pools();
}

void KernelCases::layout(Arena& arena) {
    for (float*& image : images_) image = arena.take<float>(plane_ * blocks_);
    weight_ = arena.take<float>(kMaxTaps * k_.lanes);
    channel_ = arena.take<float>(k_.lanes * blocks_);
    matrix_ = arena.take<float>(std::size_t(k_.lanes) * blocks_ * k_.lanes * blocks_);
    sums_ = arena.take<double>(2 * k_.lanes * blocks_);
}

double KernelCases::seconds(const std::string& name, double budget) const {
    for (const KernelCase& one : cases_)
        if (one.name == name) return sample(one.run, budget)[kSamples / 2];
    throw std::invalid_argument("there is no kernel " + name + " at stride " + std::to_string(stride_));
}

// `flops` and `values`, numbers read or written, are of one channel.
void KernelCases::add(std::string name, double flops, double values, std::function<void()> run) {
    cases_.push_back({std::move(name), flops * channels_, values * channels_ * sizeof(float), std::move(run)});
}

template <class Run>
std::function<void()> KernelCases::each_block(Run run) const {
    return [run, blocks = blocks_] {
        for (int b = 0; b < blocks; ++b) run(b);
    };
}

void KernelCases::add_depthwise(int kernel, int dilation) {
    const Depthwise conv{kernel, dilation, stride_, in_, out_, kPad};
    const std::string name =
        (dilation == 1 ? "depthwise " : "dilated ") + std::to_string(kernel) + "x" + std::to_string(kernel);
    const double taps = kernel * kernel, in = in_.pixels(), out = out_.pixels();
    const double flops = 2 * taps * out;
    const double padded_in = in_.h * (in_.w + 2.0 * kPad), padded_out = out_.h * (out_.w + 2.0 * kPad);
    float *const x = images_[0], *const g = images_[1], *const to = images_[2];
    add(name, flops, padded_in + taps + out,
        each_block([=](int b) { k_.depthwise(conv, block(x, b), weight_, {0, conv.out.h}, block(to, b)); }));
    add(name + " input gradient", flops, padded_out + taps + 3 * in, each_block([=](int b) {
            k_.depthwise_grad_relu(conv, block(g, b), weight_, block(x, b), {0, conv.in.h}, block(to, b));
        }));
    if (stride_ == 1 && dilation == 1)
        add(name + " input gradient, norm", flops + 6 * in, padded_out + taps + 2 * in, each_block([=](int b) {
                k_.depthwise_grad_norm(conv, block(g, b), weight_, block(x, b), channel_, channel_, channel_,
                                       {0, conv.in.h}, block(to, b), sums_);
            }));
    add(name + " weight gradient", flops, padded_in + padded_out + 2 * taps, each_block([=](int b) {
            k_.depthwise_weight_grad(conv, block(x, b), block(g, b), {0, conv.out.h}, images_[3]);
        }));
}

void KernelCases::add_pointwise() {
    const double pixels = in_.pixels(), flops = 2.0 * channels_ * pixels;
    float *const x = images_[0], *const g = images_[1], *const to = images_[2];
    const auto run = [=](const float* sums_of) {
        k_.pointwise(blocks(x), 0, channels_, matrix_, {1, in_.pixels(), 0}, blocks(to), sums_of, channel_, sums_);
    };
    add("pointwise", flops, 2 * pixels + channels_, [=] { run(nullptr); });
    add("pointwise with sums", flops + 3 * pixels, 3 * pixels + channels_, [=] { run(g); });
    add("pointwise weight gradient", flops, 2 * pixels + 2 * channels_,
        [=] { k_.pointwise_weight_grad(blocks(g), blocks(x), in_.pixels(), matrix_); });
}

void KernelCases::add_norms() {
    const double pixels = in_.pixels();
    float *const x = images_[0], *const g = images_[1], *const to = images_[2];
    add("norm_grad", 5 * pixels, 3 * pixels, each_block([=](int b) {
            k_.norm_grad(block(g, b), block(x, b), channel_, channel_, channel_, channel_, in_.pixels(), block(to, b));
        }));
    add("moments", 5 * pixels, pixels, each_block([=](int b) { k_.moments(block(x, b), in_.pixels(), sums_); }));
    add("accumulate", (3 * kTerms + 1) * pixels, (kTerms + 2) * pixels, each_block([=](int b) {
            Term<float> terms[kTerms];
            for (int t = 0; t < kTerms; ++t) terms[t] = {block(images_[1 + t], b), channel_, channel_, channel_};
            k_.accumulate(terms, kTerms, in_.pixels(), true, block(x, b));
        }));
}

void KernelCases::add_planes() {
    const double pixels = in_.pixels(), padded = in_.h * (in_.w + 2.0 * kPad);
    float *const x = images_[0], *const to = images_[2];
    const int last = channels_ - (blocks_ - 1) * k_.lanes;
    const auto lanes_of = [=](int b) { return b + 1 < blocks_ ? k_.lanes : last; };
    add("relu_pad", 0, pixels + padded, each_block([=](int b) { k_.relu_pad(block(x, b), in_, kPad, block(to, b)); }));
    add("norm_relu_pad", 3 * pixels, pixels + padded, each_block([=](int b) {
            k_.norm_relu_pad(block(x, b), channel_, channel_, channel_, in_, kPad, block(to, b));
        }));
    add("load", 0, 2 * pixels,
        each_block([=](int b) { k_.load(block(x, b), in_.pixels(), in_.w, 1, lanes_of(b), in_, block(to, b)); }));
    add("store", 0, 2 * pixels,
        each_block([=](int b) { k_.store(block(x, b), lanes_of(b), in_, block(to, b), in_.pixels(), in_.w, 1); }));
}

void KernelCases::add_pools() {
    const double in = in_.pixels(), out = out_.pixels();
    float *const x = images_[0], *const g = images_[1], *const to = images_[2], *const scratch = images_[3];
    add("max pool", 0, in + out,
        each_block([=](int b) { k_.max_pool(block(x, b), in_, stride_, out_, {0, out_.h}, scratch, block(to, b)); }));
    add("avg pool", 9 * out, in + out,
        each_block([=](int b) { k_.avg_pool(block(x, b), in_, stride_, out_, {0, out_.h}, block(to, b)); }));
    add("max pool gradient", 9 * out, out + 3 * in, each_block([=](int b) {
            k_.max_pool_grad(block(g, b), block(x, b), in_, stride_, out_, {0, in_.h}, scratch, block(to, b));
        }));
    add("avg pool gradient", 10 * out, out + 2 * in, each_block([=](int b) {
            k_.avg_pool_grad(block(g, b), in_, stride_, out_, {0, in_.h}, scratch, block(to, b));
        }));
}

}  // namespace fastnas
