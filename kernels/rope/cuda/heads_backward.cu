// A warp per head of a row; what heads give to the norms' weights is left in the workspace and summed by column.
#include "kernels/rope/cuda/heads_backward.h"

#include "absl/strings/str_cat.h"
#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda/status.h"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kMost = 2;  // pairs per lane

__device__ __forceinline__ float WarpSum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// One head of q or k. `given`: what it gives to its norm's weights, or null.
__device__ __forceinline__ void HeadGradient(const CudaHeadsArgs& args, const float* x, const float* bias,
                                             const float* norm, const float2* angles, float* dx, float* given) {
  const int lane = threadIdx.x % 32, half = args.head_dim / 2;
  float value[kMost][2], by[kMost][2], squares = 0;  // both of a pair
#pragma unroll
  for (int turn = 0; turn < kMost; ++turn) {
    const int i = turn * 32 + lane;
#pragma unroll
    for (int side = 0; side < 2; ++side) value[turn][side] = by[turn][side] = 0;
    if (i >= half) continue;
    const float2 angle = angles[i];
    const float first = dx[i], second = dx[i + half];
    by[turn][0] = fmaf(second, angle.y, first * angle.x);
    by[turn][1] = fmaf(-first, angle.y, second * angle.x);
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const int at = i + side * half;
      value[turn][side] = bias == nullptr ? x[at] : x[at] + bias[at];
      squares += value[turn][side] * value[turn][side];
    }
  }
  float scale = 1, mean = 0;
  if (norm != nullptr) {
    scale = 1.0f / sqrtf(WarpSum(squares) / static_cast<float>(args.head_dim) + args.epsilon);
#pragma unroll
    for (int turn = 0; turn < kMost; ++turn) {
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const int i = turn * 32 + lane, at = i + side * half;
        if (i >= half) continue;
        value[turn][side] *= scale;
        given[at] = by[turn][side] * value[turn][side];
        by[turn][side] *= norm[at];
        mean += by[turn][side] * value[turn][side];
      }
    }
    mean = WarpSum(mean) / static_cast<float>(args.head_dim);
  }
#pragma unroll
  for (int turn = 0; turn < kMost; ++turn) {
    const int i = turn * 32 + lane;
    if (i >= half) continue;
#pragma unroll
    for (int side = 0; side < 2; ++side) dx[i + side * half] = scale * (by[turn][side] - value[turn][side] * mean);
  }
}

// Grid (row, heads / warps): heads of q, of k, then the gates. v passes its gradient on as it is.
__global__ void __launch_bounds__(kThreads) HeadsGradient(CudaHeadsBackwardArgs args) {
  const CudaHeadsArgs& forward = args.forward;
  const int head = blockIdx.y * kWarps + threadIdx.x / 32, heads = forward.heads_q + forward.heads_kv;
  if (head > heads) return;
  const int64_t row = blockIdx.x;
  const int d = forward.head_dim;
  // The gates stand behind v.
  const int64_t at = int64_t{head == heads ? heads + forward.heads_kv : head} * d;
  const float* const x = forward.x + row * forward.row_stride + at;
  const float* const bias = forward.bias == nullptr ? nullptr : forward.bias + at;
  float* const dx = args.dx + row * forward.row_stride + at;
  if (head == heads) {
    for (int i = threadIdx.x % 32; i < forward.heads_kv; i += 32)
      dx[i] /= 1.0f + expf(bias == nullptr ? x[i] : x[i] + bias[i]);
    return;
  }
  const float* const norm = head < forward.heads_q ? forward.q_norm : forward.k_norm;
  float* const given =
      norm == nullptr ? nullptr : static_cast<float*>(args.workspace) + (row * heads + head) * int64_t{d};
  HeadGradient(forward, x, bias, norm, forward.angles + row * (d / 2), dx, given);
}

// Rows are heads of tokens.
struct NormWeight {
  const float* given;
  int first_head, num_heads, heads, d;
  __device__ void operator()(int64_t row, int64_t column, float (&sums)[1]) const {
    sums[0] += given[(row / num_heads * heads + first_head + row % num_heads) * d + column];
  }
};

}  // namespace

size_t CudaHeadsBackwardWorkspace(const CudaHeadsArgs& forward) {
  if (forward.q_norm == nullptr) return 0;
  const int64_t heads = forward.heads_q + forward.heads_kv, d = forward.head_dim;
  return 4 * (forward.num_rows * heads * d + ColumnSumParts(forward.num_rows * forward.heads_q, d, 1));
}

absl::Status CudaHeadsBackward(const CudaHeadsBackwardArgs& args, cudaStream_t stream) {
  const CudaHeadsArgs& forward = args.forward;
  if (forward.num_rows > 0 && (forward.x == nullptr || args.dx == nullptr || forward.angles == nullptr))
    return absl::InvalidArgumentError("heads backward: x, dx or angles is null");
  if (forward.head_dim > 128 || forward.head_dim % 2 != 0) {
    return absl::UnimplementedError(
        absl::StrCat("heads backward on the GPU: head_dim ", forward.head_dim, ": must be even, at most 128"));
  }
  const bool has_norms = forward.q_norm != nullptr;
  if (has_norms != (args.dq_norm != nullptr) || has_norms != (args.dk_norm != nullptr) ||
      has_norms != (forward.k_norm != nullptr) || (has_norms && args.workspace == nullptr)) {
    return absl::InvalidArgumentError(
        "heads backward: q_norm, k_norm, dq_norm and dk_norm go together, and want a workspace");
  }
  const int heads = forward.heads_q + forward.heads_kv;
  if (forward.num_rows > 0) {
    HeadsGradient<<<dim3(static_cast<unsigned>(forward.num_rows), heads / kWarps + 1), kThreads, 0, stream>>>(args);
    if (absl::Status status = LaunchStatus("HeadsGradient"); !status.ok()) return status;
  }
  if (!has_norms) return absl::OkStatus();
  const float* given = static_cast<const float*>(args.workspace);
  float* const parts = static_cast<float*>(args.workspace) + forward.num_rows * heads * forward.head_dim;
  const auto sum = [&](int first_head, int num_heads, float* out) {
    float* const outs[1] = {out};
    return SumColumns<1>(forward.num_rows * num_heads, forward.head_dim, parts, args.accumulates, outs,
                         NormWeight{given, first_head, num_heads, heads, forward.head_dim}, stream);
  };
  if (absl::Status status = sum(0, forward.heads_q, args.dq_norm); !status.ok()) return status;
  return sum(forward.heads_q, forward.heads_kv, args.dk_norm);
}

}  // namespace statehouse::kernels
