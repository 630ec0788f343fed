#include "absl/strings/str_cat.h"
#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/early_launch.h"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/norm/cuda/norm.h"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 512;
constexpr int kHeld = 8;  // elements of a row, its scale and its shift that a thread holds in registers
constexpr int64_t kMostElements = 16384;

// Grid (row). A row of up to kThreads · kHeld · kTurns elements is held in registers; all loads are under way before
// the first sum, because a decode step is a chain of latencies.
template <typename T, int kTurns>
__global__ void __launch_bounds__(kThreads) Normalise(CudaNormArgs args) {
  __shared__ float sums[kThreads / 32];
  constexpr int kMine = kHeld * kTurns;
  LetDependentsStart();
  const int64_t at = args.rows != nullptr ? args.rows[blockIdx.x] : blockIdx.x;
  const int size = static_cast<int>(args.size);
  float* const x = args.x + at * args.size;
  float row[kMine], weight[kMine], bias[kMine], sum = 0;
#pragma unroll
  for (int j = 0; j < kMine; ++j) {
    const int i = j * kThreads + threadIdx.x;
    weight[j] = bias[j] = 0;
    if (i >= size) continue;
    if (args.x_bias != nullptr) bias[j] = args.x_bias[i];
    weight[j] = args.weight[i];
  }
  WaitForResults();
#pragma unroll
  for (int j = 0; j < kMine; ++j) {
    const int i = j * kThreads + threadIdx.x;
    row[j] = i < size ? x[i] : 0.0f;
  }
#pragma unroll
  for (int j = 0; j < kMine; ++j) {
    const int i = j * kThreads + threadIdx.x;
    row[j] += bias[j];
    if (i < size && args.x_bias != nullptr && args.rows == nullptr) x[i] = row[j];
    bias[j] = i < size && args.bias != nullptr ? args.bias[i] : 0.0f;
    sum += args.is_rms ? row[j] * row[j] : row[j];
  }
  sum = BlockSum<kThreads>(sum, sums);
  const float inverse_size = 1.0f / static_cast<float>(size);
  float mean = 0, variance = sum * inverse_size;
  if (!args.is_rms) {
    mean = sum * inverse_size;
    float squares = 0;
#pragma unroll
    for (int j = 0; j < kMine; ++j) {
      const float off = j * kThreads + static_cast<int>(threadIdx.x) < size ? row[j] - mean : 0.0f;
      squares += off * off;
    }
    variance = BlockSum<kThreads>(squares, sums) * inverse_size;
  }
  const float scale = 1.0f / sqrtf(variance + args.epsilon);
  T* const y = static_cast<T*>(args.y) + blockIdx.x * args.size;
#pragma unroll
  for (int j = 0; j < kMine; ++j) {
    const int i = j * kThreads + threadIdx.x;
    if (i < size) Put(y + i, (row[j] - mean) * scale * weight[j] + bias[j]);
  }
}

template <typename T>
absl::Status Launch(const CudaNormArgs& args, cudaStream_t stream) {
  const unsigned grid = static_cast<unsigned>(args.num_rows);
  if (args.size <= kThreads * kHeld) return LaunchEarly("Normalise", Normalise<T, 1>, grid, kThreads, 0, stream, args);
  return LaunchEarly("Normalise", Normalise<T, 4>, grid, kThreads, 0, stream, args);
}

}  // namespace

absl::Status CudaNorm(const CudaNormArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return absl::OkStatus();
  if (args.size < 1 || args.size > kMostElements) {
    return absl::UnimplementedError(absl::StrCat("norm on the GPU: rows of ", args.size, "; at most ", kMostElements));
  }
  return args.y_is_bf16 ? Launch<__nv_bfloat16>(args, stream) : Launch<float>(args, stream);
}

}  // namespace statehouse::kernels
