// dx row by row, which leaves each row's mean and scale; then the sums over rows by column.
#include "kernels/norm/cuda/norm_backward.h"

#include "absl/strings/str_cat.h"
#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/status.h"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 512;
constexpr int kHeld = 8;  // elements of x and of g that a thread holds
constexpr int64_t kMostElements = 16384;

// Grid (row). stats[row]: mean and 1 / σ.
template <typename T, int kTurns>
__global__ void __launch_bounds__(kThreads) NormGradient(CudaNormBackwardArgs args, float2* stats) {
  __shared__ float shared[kThreads / 32];
  constexpr int kMine = kHeld * kTurns;
  const int size = static_cast<int>(args.size);
  const int64_t first = blockIdx.x * args.size;
  const T* const dy = static_cast<const T*>(args.dy) + first;
  const float inverse_size = 1.0f / static_cast<float>(size);
  float x[kMine], g[kMine], sum = 0;
#pragma unroll
  for (int j = 0; j < kMine; ++j) {
    const int i = j * kThreads + threadIdx.x;
    x[j] = i < size ? args.x[first + i] : 0.0f;
    g[j] = i < size ? Get(dy + i) * args.weight[i] : 0.0f;
    sum += x[j];
  }
  const float mean = args.is_rms ? 0.0f : BlockSum<kThreads>(sum, shared) * inverse_size;
  float squares = 0;
#pragma unroll
  for (int j = 0; j < kMine; ++j) {
    x[j] = j * kThreads + static_cast<int>(threadIdx.x) < size ? x[j] - mean : 0.0f;
    squares += x[j] * x[j];
  }
  const float inverse = 1.0f / sqrtf(BlockSum<kThreads>(squares, shared) * inverse_size + args.epsilon);
  float sum_g = 0, sum_gx = 0;
#pragma unroll
  for (int j = 0; j < kMine; ++j) {
    x[j] *= inverse;
    sum_g += g[j];
    sum_gx += g[j] * x[j];
  }
  const float mean_g = args.is_rms ? 0.0f : BlockSum<kThreads>(sum_g, shared) * inverse_size;
  const float mean_gx = BlockSum<kThreads>(sum_gx, shared) * inverse_size;
#pragma unroll
  for (int j = 0; j < kMine; ++j) {
    const int i = j * kThreads + threadIdx.x;
    if (i >= size) continue;
    const float beside = args.dresidual == nullptr ? 0.0f : args.dresidual[first + i];
    args.dx[first + i] = beside + inverse * (g[j] - mean_g - x[j] * mean_gx);
  }
  if (threadIdx.x == 0) stats[blockIdx.x] = {mean, inverse};
}

template <typename T>
struct WeightAndBias {
  const float* x;
  const T* dy;
  const float2* stats;
  int64_t size;
  __device__ void operator()(int64_t row, int64_t column, float (&sums)[2]) const {
    const float by = Get(dy + row * size + column);
    sums[0] += by * (x[row * size + column] - stats[row].x) * stats[row].y;
    sums[1] += by;
  }
};

template <typename T>
absl::Status Launch(const CudaNormBackwardArgs& args, cudaStream_t stream) {
  float2* const stats = static_cast<float2*>(args.workspace);
  float* const parts = reinterpret_cast<float*>(stats + args.num_rows);
  const unsigned grid = static_cast<unsigned>(args.num_rows);
  if (grid > 0 && args.size <= kThreads * kHeld) {
    NormGradient<T, 1><<<grid, kThreads, 0, stream>>>(args, stats);
  } else if (grid > 0) {
    NormGradient<T, 4><<<grid, kThreads, 0, stream>>>(args, stats);
  }
  if (absl::Status status = LaunchStatus("NormGradient"); !status.ok()) return status;
  float* const outs[2] = {args.dweight, args.dbias};
  return SumColumns<2>(args.num_rows, args.size, parts, args.accumulates, outs,
                       WeightAndBias<T>{args.x, static_cast<const T*>(args.dy), stats, args.size}, stream);
}

}  // namespace

size_t CudaNormBackwardWorkspace(int64_t num_rows, int64_t size) {
  return 8 * num_rows + 4 * ColumnSumParts(num_rows, size, 2);
}

absl::Status CudaNormBackward(const CudaNormBackwardArgs& args, cudaStream_t stream) {
  if (args.size < 1 || args.size > kMostElements) {
    return absl::UnimplementedError(
        absl::StrCat("norm backward on the GPU: rows of ", args.size, "; at most ", kMostElements));
  }
  if (args.x == nullptr || args.dy == nullptr || args.weight == nullptr || args.dx == nullptr ||
      args.dweight == nullptr || args.workspace == nullptr) {
    return absl::InvalidArgumentError("norm backward: x, dy, weight, dx, dweight or workspace is null");
  }
  return args.dy_is_bf16 ? Launch<__nv_bfloat16>(args, stream) : Launch<float>(args, stream);
}

}  // namespace statehouse::kernels
