#define FASTNAS_WIDTH avx2
#define FASTNAS_BYTES 32
#define FASTNAS_REGISTERS 16
#include "kernels/table.h"

namespace fastnas {
extern const Kernels<float> avx2_float;
extern const Kernels<double> avx2_double;
const Kernels<float> avx2_float = avx2::table<float>;
const Kernels<double> avx2_double = avx2::table<double>;
}  // namespace fastnas
