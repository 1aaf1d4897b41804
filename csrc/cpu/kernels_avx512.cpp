#define FASTNAS_WIDTH avx512
#define FASTNAS_BYTES 64
#define FASTNAS_REGISTERS 32
#include "kernels/table.h"

namespace fastnas {
extern const Kernels<float> avx512_float;
extern const Kernels<double> avx512_double;
const Kernels<float> avx512_float = avx512::table<float>;
const Kernels<double> avx512_double = avx512::table<double>;
}  // namespace fastnas
