// Storage types of activations. Arithmetic is float; float16 and bfloat16 are only what lies in memory, so two
// conversions each are all there is, and the toolkit's headers are not needed.
#pragma once

namespace fastnas::gpu {

struct Half {
    unsigned short bits;
};
struct Bfloat {
    unsigned short bits;
};

__device__ inline float to_float(float value) {
    return value;
}

__device__ inline float to_float(Bfloat value) {
    return __uint_as_float(unsigned(value.bits) << 16);
}

__device__ inline float to_float(Half value) {
#ifdef __CUDA_ARCH__
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
#else
    const unsigned sign = unsigned(value.bits & 0x8000) << 16, rest = unsigned(value.bits & 0x7fff) << 13;
    if (rest >= 0x0f800000) return __uint_as_float(sign | 0x70000000 | rest);  // infinity and NaN
    return __uint_as_float(sign | __float_as_uint(__uint_as_float(rest) * 0x1p112f));
#endif
}

// To the nearest, ties to even.
template <class T>
__device__ T from_float(float value);

template <>
__device__ inline float from_float<float>(float value) {
    return value;
}

template <>
__device__ inline Bfloat from_float<Bfloat>(float value) {
    const unsigned bits = __float_as_uint(value);
    if (value != value) return {(unsigned short)(bits >> 16 | 0x40)};
    return {(unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

template <>
__device__ inline Half from_float<Half>(float value) {
#ifdef __CUDA_ARCH__
    Half result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
#else
    const unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size > 0x7f800000) return {(unsigned short)(sign | 0x7e00)};
    if (size >= 0x477ff000) return {(unsigned short)(sign | 0x7c00)};
    // Below 2^-14 numbers are whole multiples of 2^-24: adding ½ (spacing 2^-24) leaves that multiple in the last bits.
    if (size < 0x38800000)
        return {(unsigned short)(sign | (__float_as_uint(__uint_as_float(size) + 0.5f) - 0x3f000000))};
    return {(unsigned short)(sign | (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13)};
#endif
}

// What reading it back from memory gives.
template <class T>
__device__ inline float rounded(float value) {
    return to_float(from_float<T>(value));
}

}  // namespace fastnas::gpu
