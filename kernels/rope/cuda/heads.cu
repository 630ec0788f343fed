#include "kernels/cuda/early_launch.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/rope/cuda/heads.cuh"
#include "kernels/rope/cuda/heads.h"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;

// Grid (row).
__global__ void FormAngles(const int64_t* positions, const DoubleDouble* turns, float2* angles, int pairs) {
  LetDependentsStart();
  WaitForResults();  // the step before is done with its angles
  const double position = static_cast<double>(positions[blockIdx.x]);
  for (int i = threadIdx.x; i < pairs; i += blockDim.x) {
    // The fraction of position · turns, exact in its leading part.
    const double product = position * turns[i].hi;
    const double rest = fma(position, turns[i].hi, -product) + position * turns[i].lo;
    const double fraction = (product - rint(product)) + rest;
    double sine, cosine;
    sincospi(2.0 * fraction, &sine, &cosine);
    angles[int64_t{blockIdx.x} * pairs + i] = make_float2(static_cast<float>(cosine), static_cast<float>(sine));
  }
}

// Grid (row, heads / warps): a warp per head of q, k or v; the last "head" is the gates.
__global__ void __launch_bounds__(kThreads) PrepareHeads(CudaHeadsArgs args) {
  const int lane = threadIdx.x % 32, d = args.head_dim, half = d / 2;
  const int head = blockIdx.y * kWarps + threadIdx.x / 32, heads = args.heads_q + 2 * args.heads_kv;
  LetDependentsStart();
  WaitForResults();
  if (head > heads) return;
  const int64_t row = blockIdx.x;
  float* const x = args.x + row * args.row_stride + int64_t{head} * d;
  const float* const bias = args.bias == nullptr ? nullptr : args.bias + int64_t{head} * d;
  if (head == heads) {
    for (int i = lane; i < args.heads_kv; i += 32) x[i] = LogSigmoid(bias == nullptr ? x[i] : x[i] + bias[i]);
    return;
  }
  const bool is_v = head >= args.heads_q + args.heads_kv;
  constexpr int kMost = 2;  // pairs per lane
  float first[kMost], second[kMost], squares = 0;
#pragma unroll
  for (int turn = 0; turn < kMost; ++turn) {
    const int i = turn * 32 + lane;
    first[turn] = second[turn] = 0;
    if (i >= half) continue;
    first[turn] = bias == nullptr ? x[i] : x[i] + bias[i];
    second[turn] = bias == nullptr ? x[i + half] : x[i + half] + bias[i + half];
    squares += first[turn] * first[turn] + second[turn] * second[turn];
  }
  const float* const norm = is_v ? nullptr : head < args.heads_q ? args.q_norm : args.k_norm;
  float scale = 1;
  if (norm != nullptr) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, step);
    scale = 1.0f / sqrtf(squares / static_cast<float>(d) + args.epsilon);
  }
#pragma unroll
  for (int turn = 0; turn < kMost; ++turn) {
    const int i = turn * 32 + lane;
    if (i >= half) continue;
    float a = first[turn], b = second[turn];
    if (norm != nullptr) a *= scale * norm[i], b *= scale * norm[i + half];
    const float2 angle = is_v ? make_float2(1.0f, 0.0f) : args.angles[row * half + i];
    x[i] = is_v ? a : fmaf(-b, angle.y, a * angle.x);
    x[i + half] = is_v ? b : fmaf(a, angle.y, b * angle.x);
  }
}

}  // namespace

absl::Status CudaRopeAngles(const int64_t* positions, const DoubleDouble* turns, float2* angles, int64_t num_rows,
                            int head_dim, cudaStream_t stream) {
  if (num_rows == 0) return absl::OkStatus();
  return LaunchEarly("FormAngles", FormAngles, static_cast<unsigned>(num_rows), 64, 0, stream, positions, turns, angles,
                     head_dim / 2);
}

absl::Status CudaPrepareHeads(const CudaHeadsArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return absl::OkStatus();
  const int heads = args.heads_q + 2 * args.heads_kv + 1;
  const dim3 grid(static_cast<unsigned>(args.num_rows), (heads + kWarps - 1) / kWarps);
  return LaunchEarly("PrepareHeads", PrepareHeads, grid, kThreads, 0, stream, args);
}

}  // namespace statehouse::kernels
