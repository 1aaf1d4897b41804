#define FASTNAS_WIDTH avx2
#define FASTNAS_BYTES 32
#define FASTNAS_REGISTERS 16
#include "peak.h"

namespace fastnas {
extern const PeakLoops avx2_peak_loops;
const PeakLoops avx2_peak_loops = avx2::peak_loops;
}  // namespace fastnas
