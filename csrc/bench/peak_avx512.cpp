#define FASTNAS_WIDTH avx512
#define FASTNAS_BYTES 64
#define FASTNAS_REGISTERS 32
#include "peak.h"

namespace fastnas {
extern const PeakLoops avx512_peak_loops;
const PeakLoops avx512_peak_loops = avx512::peak_loops;
}  // namespace fastnas
