// The vector width is chosen once, from what the processor can do; FASTNAS_VECTOR_WIDTH asks for a narrower one.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "cell.h"

namespace fastnas {

#define FASTNAS_DECLARE(width)                 \
    extern const Kernels<float> width##_float; \
    extern const Kernels<double> width##_double;
FASTNAS_DECLARE(baseline)
#ifdef FASTNAS_X86
FASTNAS_DECLARE(avx2)
FASTNAS_DECLARE(avx512)
#endif
#undef FASTNAS_DECLARE

namespace {

struct Width {
    const char* name;
    const Kernels<float>& f32;
    const Kernels<double>& f64;
    bool runs;
};

// Those that this processor has, the widest first.
const std::vector<Width>& widths() {
    static const std::vector<Width> available = [] {
        const Width all[] = {
#ifdef FASTNAS_X86
            {"avx512", avx512_float, avx512_double,
             __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                 __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")},
            {"avx2", avx2_float, avx2_double, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
#endif
            {"baseline", baseline_float, baseline_double, true},
        };
        const char* widest = std::getenv("FASTNAS_VECTOR_WIDTH");
        bool begun = !widest || !*widest;
        std::vector<Width> result;
        for (const Width& width : all) {
            begun |= widest && !std::strcmp(widest, width.name) && width.runs;
            if (begun && width.runs) result.push_back(width);
        }
        if (result.empty())
            throw std::runtime_error(std::string("FASTNAS_VECTOR_WIDTH must be avx512, avx2 or baseline, and this "
                                                 "processor must have it, got ") +
                                     widest);
        return result;
    }();
    return available;
}

int padded(int channels, int lanes) {
    return (channels + lanes - 1) / lanes * lanes;
}

// Half as wide a vector costs half as much where it leaves fewer lanes empty.
template <class T>
const Kernels<T>& choose(int channels, const Kernels<T>& (*table)(const Width&)) {
    const Kernels<T>& widest = table(widths()[0]);
    if (widths().size() == 1 || std::strcmp(widths()[0].name, "avx512") != 0) return widest;
    const Kernels<T>& half = table(widths()[1]);
    return padded(channels, half.lanes) < padded(channels, widest.lanes) ? half : widest;
}

}  // namespace

template <>
const Kernels<float>& kernels<float>(int channels) {
    return choose<float>(channels, [](const Width& w) -> const Kernels<float>& { return w.f32; });
}

template <>
const Kernels<double>& kernels<double>(int channels) {
    return choose<double>(channels, [](const Width& w) -> const Kernels<double>& { return w.f64; });
}

const char* vector_width() {
    return widths()[0].name;
}

int block(int element_size, int channels) {
    return element_size == 4 ? kernels<float>(channels).lanes : kernels<double>(channels).lanes;
}

}  // namespace fastnas
