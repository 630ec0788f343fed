// Between the padded state of the device and the canonical one of files.
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 128;

// Grid (i, count): the pairs (i, j) of one state, each j in turn.
template <bool kExport>
__global__ void __launch_bounds__(kThreads)
    ConvertState(int d, const float* from_S, const float* from_z, float* to_S, float* to_z) {
  const int i = blockIdx.x;
  const int64_t state = blockIdx.y, D = int64_t{d} * (d + 1) / 2, P = RetentionStateRows(d);
  for (int j = 0; j < d; ++j) {
    if (kExport ? j < i : i / 8 > j / 8) continue;
    const int64_t padded = state * P + RetentionStateRow(i, j, d);
    const int low = min(i, j), high = max(i, j);
    const int64_t canonical = state * D + int64_t{low} * d - int64_t{low} * (low - 1) / 2 + (high - low);
    const float factor = low == high ? 1.0f : kExport ? 2.0f : 0.5f;
    const int64_t from = kExport ? padded : canonical, to = kExport ? canonical : padded;
    for (int column = threadIdx.x; column < d; column += kThreads)
      to_S[to * d + column] = factor * from_S[from * d + column];
    if (threadIdx.x == 0) to_z[to] = factor * from_z[from];
  }
}

}  // namespace

absl::Status ExportRetentionState(int64_t count, int head_dim, const float* S, const float* z, float* canonical_S,
                                  float* canonical_z, cudaStream_t stream) {
  if (count == 0) return absl::OkStatus();
  ConvertState<true>
      <<<dim3(head_dim, static_cast<unsigned>(count)), kThreads, 0, stream>>>(head_dim, S, z, canonical_S, canonical_z);
  return LaunchStatus("ConvertState");
}

absl::Status ImportRetentionState(int64_t count, int head_dim, const float* canonical_S, const float* canonical_z,
                                  float* S, float* z, cudaStream_t stream) {
  if (count == 0) return absl::OkStatus();
  ConvertState<false>
      <<<dim3(head_dim, static_cast<unsigned>(count)), kThreads, 0, stream>>>(head_dim, canonical_S, canonical_z, S, z);
  return LaunchStatus("ConvertState");
}

}  // namespace statehouse::kernels
