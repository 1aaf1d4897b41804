#define FASTNAS_WIDTH baseline
#define FASTNAS_BYTES 16
#define FASTNAS_REGISTERS 16
#include "peak.h"

namespace fastnas {
extern const PeakLoops baseline_peak_loops;
const PeakLoops baseline_peak_loops = baseline::peak_loops;
}  // namespace fastnas
