// Weights go from device memory into the registers that hold them for the product, 16 bytes per load, eight loads of
// each thread under way at once. Rows of x are the left operand of 16x8x16 products; both operands number the summed
// dimension in the same permuted way, so that each lane's 16 bytes serve as they come.
#include "kernels/cuda/early_launch.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/matmul/cuda/few_rows.h"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kDepth = 8;  // loads of weights under way per thread
constexpr int kAhead = 4;   // pieces of x under way
constexpr int kPiece = 32;  // inputs of a warp's load: four lanes, 8 numbers each

__device__ __forceinline__ float Gelu(float x) {
  constexpr float kRoot = 0.7978845608028654f;  // sqrt(2 / pi)
  return 0.5f * x * (1.0f + tanhf(kRoot * (x + 0.044715f * x * x * x)));
}

// Weights are read once: they should not push anything else out of the cache.
__device__ __forceinline__ uint4 LoadOnce(const bf16* from) {
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from));
  return value;
}

// Grid (outputs / 8 kTiles). A block forms 8 kTiles outputs of all rows; its warps take pieces of the inputs in turn.
// kHalves: 1 for up to 8 rows, 2 for up to 16.
template <int kTiles, int kHalves>
__global__ void __launch_bounds__(kThreads, kHalves == 1 ? 3 : 2) MultiplyFewRows(CudaFewRowsArgs args) {
  constexpr int kOutputs = 8 * kTiles, kRows = 8 * kHalves, kTurn = kDepth / kTiles;  // pieces under way
  static_assert(kTurn % kAhead == 0);
  __shared__ float sums[kWarps][kRows][kOutputs];
  LetDependentsStart();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4;
  const int inputs = static_cast<int>(args.inputs), pieces = inputs / (kPiece * kWarps);
  const int64_t first_output = int64_t{blockIdx.x} * kOutputs;
  const auto column = [&](int piece) { return ((piece / 2 * kWarps + warp) * 2 + piece % 2) * kPiece + lane % 4 * 8; };
  const bf16* weights[kTiles];
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    const int64_t output = min(first_output + tile * 8 + group, args.outputs - 1);
    weights[tile] = static_cast<const bf16*>(args.weights) + output * inputs;
  }
  uint4 w[kTurn][kTiles];
#pragma unroll
  for (int piece = 0; piece < kTurn; ++piece) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      w[piece][tile] = piece < pieces ? LoadOnce(weights[tile] + column(piece)) : make_uint4(0, 0, 0, 0);
    }
  }
  WaitForResults();

  const int rows = static_cast<int>(args.rows);
  const bf16* const x = static_cast<const bf16*>(args.x);
  const auto load_x = [&](int piece, uint4(&to)[kHalves]) {
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      const int row = half * 8 + group;
      to[half] = make_uint4(0, 0, 0, 0);
      if (row < rows && piece < pieces) {
        to[half] = *reinterpret_cast<const uint4*>(x + int64_t{row} * inputs + column(piece));
      }
    }
  };
  uint4 ahead[kAhead][kHalves];
#pragma unroll
  for (int piece = 0; piece < kAhead; ++piece) load_x(piece, ahead[piece]);
  float sum[kTiles][4] = {};
  for (int first = 0; first < pieces; first += kTurn) {
#pragma unroll
    for (int turn = 0; turn < kTurn; ++turn) {
      const int piece = first + turn;
      uint4(&mine)[kHalves] = ahead[turn % kAhead];
      const uint4 low = mine[0], high = kHalves == 2 ? mine[kHalves - 1] : make_uint4(0, 0, 0, 0);
      const uint32_t first_half[4] = {low.x, high.x, low.y, high.y}, second_half[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const uint4 held = w[turn][tile];
        Mma<bf16>(sum[tile], first_half, held.x, held.y);
        Mma<bf16>(sum[tile], second_half, held.z, held.w);
        if (piece + kTurn < pieces) w[turn][tile] = LoadOnce(weights[tile] + column(piece + kTurn));
      }
      load_x(piece + kAhead, mine);
    }
  }
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      *reinterpret_cast<float2*>(&sums[warp][half * 8 + group][tile * 8 + lane % 4 * 2]) =
          make_float2(sum[tile][half * 2], sum[tile][half * 2 + 1]);
    }
  }
  __syncthreads();  // warps' sums are there
  for (int at = threadIdx.x; at < rows * kOutputs; at += kThreads) {
    const int row = at / kOutputs, output = at % kOutputs;
    if (first_output + output >= args.outputs) continue;
    float value = args.bias == nullptr ? 0.0f : args.bias[first_output + output];
    const int64_t to = row * args.outputs + first_output + output;
    float* const y = static_cast<float*>(args.y);
    const float before = args.add ? y[to] : 0.0f;
    float total = 0;
#pragma unroll
    for (int i = 0; i < kWarps; ++i) total += sums[i][row][output];
    value += total;
    if (args.gelu) value = Gelu(value);
    if (args.y_is_bf16) {
      static_cast<bf16*>(args.y)[to] = __float2bfloat16_rn(value);
    } else {
      y[to] = before + value;
    }
  }
}

template <int kTiles>
absl::Status Launch(const CudaFewRowsArgs& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((args.outputs + 8 * kTiles - 1) / (8 * kTiles)));
  if (args.rows <= 8)
    return LaunchEarly("MultiplyFewRows", MultiplyFewRows<kTiles, 1>, grid, kThreads, 0, stream, args);
  return LaunchEarly("MultiplyFewRows", MultiplyFewRows<kTiles, 2>, grid, kThreads, 0, stream, args);
}

}  // namespace

bool HasFewRowsKernel(const CudaFewRowsArgs& args) {
  return args.rows >= 1 && args.rows <= kMostFewRows && args.inputs % (2 * kPiece * kWarps) == 0;
}

absl::Status CudaMultiplyFewRows(const CudaFewRowsArgs& args, cudaStream_t stream) {
  // Wide matrices: fewer blocks, each of which reads all of x.
  constexpr int64_t kWide = 8192;
  return args.outputs >= kWide ? Launch<2>(args, stream) : Launch<1>(args, stream);
}

}  // namespace statehouse::kernels
