#define FASTNAS_WIDTH baseline
#define FASTNAS_BYTES 16
#define FASTNAS_REGISTERS 16
#include "kernels/table.h"

namespace fastnas {
extern const Kernels<float> baseline_float;
extern const Kernels<double> baseline_double;
const Kernels<float> baseline_float = baseline::table<float>;
const Kernels<double> baseline_double = baseline::table<double>;
}  // namespace fastnas
