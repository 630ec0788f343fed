#include "server/machine_rates.h"

#include <cstdint>

#include "kernels/probe/bandwidth.h"
#include "kernels/probe/fma_peak.h"

namespace statehouse {

v1::Machine MeasureMachine(kernels::ThreadPool& pool) {
  // From what a core's own cache holds to what only memory does.
  constexpr int64_t kSizes[] = {int64_t{1} << 20, int64_t{8} << 20, int64_t{64} << 20};
  constexpr int kRuns = 5;
  v1::Machine machine;
  for (const int64_t bytes : kSizes) {
    const double rate = kernels::MeasureReadBandwidth(bytes, pool, kRuns);
    if (rate <= 0) continue;
    v1::ReadRate* const read = machine.add_read();
    read->set_bytes(bytes);
    read->set_bytes_per_second(rate);
  }
  machine.set_flops_per_second(kernels::MeasureFmaPeak(pool, kRuns));
  return machine;
}

}  // namespace statehouse
