#include "kernels/bench/cuda/gpu_bench.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/bench/cuda/gpu_cases.h"
#include "kernels/cuda/device.h"
#include "kernels/probe/cuda/gpu_ceilings.h"

namespace statehouse::kernels::bench {

absl::Status AcceptError(const RetentionCase& it, double error) {
  if (error <= MostError(it)) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrFormat("%s, %s: relative error %.1e against the definition, more than %.0e: not timed",
                      PassName(it.pass), ShapeName(it), error, MostError(it)));
}

absl::StatusOr<Figure> MeasureOnGpu(const RetentionCase& it, int64_t runs) {
  if (absl::Status status = CheckCase(it); !status.ok()) return status;
  const absl::StatusOr<Stream> stream = Stream::Make();
  if (!stream.ok()) return stream.status();
  return it.pass == Pass::kDecode ? MeasureDecode(it, stream->get(), runs) : MeasureSequences(it, stream->get(), runs);
}

absl::StatusOr<Ceilings> MeasureGpu() {
  const absl::StatusOr<DeviceProperties> device = GetDeviceProperties(0);
  if (!device.ok()) return device.status();
  const absl::StatusOr<GpuCeilings> ceilings = MeasureGpuCeilings();
  if (!ceilings.ok()) return ceilings.status();
  return Ceilings{device->name, ceilings->copy_bytes_per_s, ceilings->bf16_flops_per_s};
}

}  // namespace statehouse::kernels::bench
