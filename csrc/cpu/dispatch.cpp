// The vector width is chosen once, from what the processor can do; FASTNAS_VECTOR_WIDTH asks for a narrower one.
#include <cstdlib>
#include <cstring>
#include <stdexcept>

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

const Width& width() {
    static const Width chosen = [] {
        const Width widths[] = {
#ifdef FASTNAS_X86
            {"avx512", avx512_float, avx512_double,
             __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                 __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")},
            {"avx2", avx2_float, avx2_double, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
#endif
            {"baseline", baseline_float, baseline_double, true},
        };
        const char* wanted = std::getenv("FASTNAS_VECTOR_WIDTH");
        for (const Width& w : widths)
            if (w.runs && (!wanted || !*wanted || !std::strcmp(wanted, w.name))) return w;
        throw std::runtime_error(std::string("FASTNAS_VECTOR_WIDTH must be avx512, avx2 or baseline, and this "
                                             "processor must have it, got ") +
                                 wanted);
    }();
    return chosen;
}

}  // namespace

template <>
const Kernels<float>& kernels<float>() {
    return width().f32;
}

template <>
const Kernels<double>& kernels<double>() {
    return width().f64;
}

const char* vector_width() {
    return width().name;
}

int block(int element_size, int) {
    return element_size == 4 ? kernels<float>().lanes : kernels<double>().lanes;
}

}  // namespace fastnas
