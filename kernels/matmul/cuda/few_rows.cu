// Weights go from device memory into shared memory by asynchronous copies, 48 KB of a block under way at once, several
// blocks per multiprocessor; a thread uses only what it asked for itself, so no barrier holds it up. Rows of x are the
// left operand of 16x8x16 products; both operands number the summed dimension in the same permuted way, so that each
// lane's 16 bytes serve as they come.
#include "absl/strings/str_cat.h"
#include "kernels/activation/cuda/gelu.cuh"
#include "kernels/cuda/early_launch.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/matmul/cuda/few_rows.h"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kDepth = 12;  // copies of weights under way per thread
// Bytes of x that a block holds: with the ring and the sums exactly the 99 KB that compute capability 8.6 gives it.
constexpr int kMostStaged = 43 << 10;
constexpr int kPiece = 32;  // inputs of a warp's load: four lanes, 8 numbers each

// A row of x in shared memory, so that neighbouring rows begin in other banks.
__device__ __host__ constexpr int64_t StagedStride(int64_t inputs) { return inputs + 32; }

// All of x into shared memory, many loads under way at once.
__device__ void StageRows(const bf16* x, int rows, int inputs, bf16* staged) {
  constexpr int kAtOnce = 6;
  const int per_row = inputs / 8, all = rows * per_row;
  for (int first = threadIdx.x; first < all; first += kAtOnce * kThreads) {
    uint4 held[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int at = first + i * kThreads;
      if (at < all) held[i] = reinterpret_cast<const uint4*>(x)[at];
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int at = first + i * kThreads;
      if (at < all)
        *reinterpret_cast<uint4*>(staged + at / per_row * StagedStride(inputs) + at % per_row * 8) = held[i];
    }
  }
}

// Grid (outputs / 8 kTiles). A block forms 8 kTiles outputs of all rows; its warps take pieces of the inputs in turn.
// kHalves: 1 for up to 8 rows, 2 for up to 16. kStaged: x goes through shared memory, else each piece comes as needed.
template <int kTiles, int kHalves, bool kStaged>
__global__ void __launch_bounds__(kThreads) MultiplyFewRows(CudaFewRowsArgs args) {
  constexpr int kOutputs = 8 * kTiles, kRows = 8 * kHalves, kRing = kDepth / kTiles;  // pieces under way
  extern __shared__ float4 memory[];
  __shared__ float sums[kWarps][kRows][kOutputs];
  auto& ring = *reinterpret_cast<uint4(*)[kRing][kTiles][kThreads]>(memory);
  bf16* const staged = reinterpret_cast<bf16*>(memory + kDepth * kThreads);
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
  // A group of copies in any case, so that they can be counted.
  const auto ask = [&](int piece, int place) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      if (piece < pieces) CopyAsync16(SharedAddress(&ring[place][tile][threadIdx.x]), weights[tile] + column(piece));
    }
    CopyCommit();
  };
#pragma unroll
  for (int piece = 0; piece < kRing; ++piece) ask(piece, piece);
  WaitForResults();

  // The element that this thread finishes.
  const int rows = static_cast<int>(args.rows);
  const int row = threadIdx.x / kOutputs, output = threadIdx.x % kOutputs;
  const bool finishes = row < rows && first_output + output < args.outputs;
  const int64_t to = row * args.outputs + first_output + output;
  float value = 0, before = 0;
  if (finishes && args.bias != nullptr) value = args.bias[first_output + output];
  if (finishes && args.add) before = static_cast<float*>(args.y)[to];
  const bf16* const x = static_cast<const bf16*>(args.x);
  if constexpr (kStaged) {
    StageRows(x, rows, inputs, staged);
    __syncthreads();  // x is there
  }
  float sum[kTiles][4] = {};
  for (int first = 0; first < pieces; first += kRing) {
#pragma unroll
    for (int place = 0; place < kRing; ++place) {
      const int piece = first + place;
      if (piece >= pieces) break;
      uint4 mine[2] = {make_uint4(0, 0, 0, 0), make_uint4(0, 0, 0, 0)};
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        const int from = half * 8 + group;
        if (from >= rows) continue;
        mine[half] = *reinterpret_cast<const uint4*>(
            (kStaged ? staged + from * StagedStride(inputs) : x + int64_t{from} * inputs) + column(piece));
      }
      CopyWait<kRing - 1>();
      const uint32_t first_half[4] = {mine[0].x, mine[1].x, mine[0].y, mine[1].y};
      const uint32_t second_half[4] = {mine[0].z, mine[1].z, mine[0].w, mine[1].w};
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const uint4 held = ring[place][tile][threadIdx.x];
        Mma<bf16>(sum[tile], first_half, held.x, held.y);
        Mma<bf16>(sum[tile], second_half, held.z, held.w);
      }
      ask(piece + kRing, place);
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
  if (!finishes) return;
  float total = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) total += sums[i][row][output];
  value += total;
  if (args.gelu) value = Gelu(value);
  if (args.y_is_bf16) {
    static_cast<bf16*>(args.y)[to] = __float2bfloat16_rn(value);
  } else {
    static_cast<float*>(args.y)[to] = before + value;
  }
}

template <int kTiles, int kHalves>
absl::Status Launch(const CudaFewRowsArgs& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((args.outputs + 8 * kTiles - 1) / (8 * kTiles)));
  constexpr int kRingBytes = kDepth * kThreads * 16;
  const int64_t staged = args.rows * StagedStride(args.inputs) * 2;
  const bool is_staged = staged <= kMostStaged;
  const auto kernel = is_staged ? MultiplyFewRows<kTiles, kHalves, true> : MultiplyFewRows<kTiles, kHalves, false>;
  const int bytes = kRingBytes + (is_staged ? static_cast<int>(staged) : 0);
  if (absl::Status status = AllowShared(kernel, kRingBytes + kMostStaged); !status.ok()) return status;
  return LaunchEarly("MultiplyFewRows", kernel, grid, kThreads, bytes, stream, args);
}

}  // namespace

bool HasFewRowsKernel(const CudaFewRowsArgs& args) {
  return args.rows >= 1 && args.rows <= kMostFewRows && args.inputs % (2 * kPiece * kWarps) == 0;
}

absl::Status CudaMultiplyFewRows(const CudaFewRowsArgs& args, cudaStream_t stream) {
  if (!HasFewRowsKernel(args)) {
    return absl::UnimplementedError(
        absl::StrCat("few rows on the GPU: ", args.rows, " rows of ", args.inputs, " inputs"));
  }
  if (args.add && args.y_is_bf16) return absl::UnimplementedError("few rows on the GPU: adding to a bf16 y");
  // Wide matrices: fewer blocks, each of which reads all of x.
  constexpr int64_t kWide = 8192;
  if (args.outputs >= kWide) return args.rows <= 8 ? Launch<2, 1>(args, stream) : Launch<2, 2>(args, stream);
  return args.rows <= 8 ? Launch<1, 1>(args, stream) : Launch<1, 2>(args, stream);
}

}  // namespace statehouse::kernels
