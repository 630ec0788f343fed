// y = x Wᵀ with one order of summation for any number of rows: each element is one chain over the inputs, of fused
// multiply-adds (float32) or of 16x8x16 products (bf16). Tiles cut outputs and rows, never inputs.
#include "absl/strings/str_cat.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/status.h"
#include "kernels/matmul/cuda/matmul.h"

namespace statehouse::kernels {
namespace {

constexpr int kTile = 64;  // rows and outputs of a block

__device__ __forceinline__ void StoreOne(const CudaMatMulArgs& args, int64_t row, int64_t output, float value) {
  if (row >= args.rows || output >= args.outputs) return;
  const int64_t at = row * args.outputs + output;
  if (args.y_is_bf16) {
    static_cast<bf16*>(args.y)[at] = __float2bfloat16_rn(value);
  } else {
    float* const y = static_cast<float*>(args.y);
    y[at] = args.add ? y[at] + value : value;
  }
}

// Grid (outputs / 64, rows / 64). 256 threads of 4 x 4 elements.
__global__ void __launch_bounds__(256) MultiplyFloat(CudaMatMulArgs args) {
  constexpr int kDepth = 16;
  __shared__ float x[kDepth][kTile + 4], w[kDepth][kTile + 4];
  const int64_t first_output = blockIdx.x * kTile, first_row = blockIdx.y * kTile;
  const float *const X = static_cast<const float*>(args.x), *const W = static_cast<const float*>(args.weights);
  const int row = threadIdx.x / 16 * 4, output = threadIdx.x % 16 * 4;
  float sum[4][4] = {};
  for (int64_t k0 = 0; k0 < args.inputs; k0 += kDepth) {
    __syncthreads();  // the tile before is used up
    for (int at = threadIdx.x; at < kTile * kDepth; at += 256) {
      const int i = at / kDepth, k = at % kDepth;
      const bool inside = k0 + k < args.inputs;
      x[k][i] = inside && first_row + i < args.rows ? X[(first_row + i) * args.inputs + k0 + k] : 0.0f;
      w[k][i] = inside && first_output + i < args.outputs ? W[(first_output + i) * args.inputs + k0 + k] : 0.0f;
    }
    __syncthreads();  // tiles are there
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      const float4 a = *reinterpret_cast<const float4*>(&x[k][row]),
                   b = *reinterpret_cast<const float4*>(&w[k][output]);
      const float rows[4] = {a.x, a.y, a.z, a.w}, outputs[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(rows[i], outputs[j], sum[i][j]);
      }
    }
  }
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) StoreOne(args, first_row + row + i, first_output + output + j, sum[i][j]);
  }
}

// Grid (outputs / 64, rows / kRows). Four warps; each holds 16 outputs of every row, because the weights are the left
// operand: a decode step has many outputs and few rows.
template <int kRows>
__global__ void __launch_bounds__(128) MultiplyBf16(CudaMatMulArgs args) {
  constexpr int kDepth = 64, kStages = 4, kStride = kDepth + 8;  // 16 bytes more: rows start in other banks
  extern __shared__ float4 memory[];
  auto& w = *reinterpret_cast<bf16(*)[kStages][kTile][kStride]>(memory);
  auto& x =
      *reinterpret_cast<bf16(*)[kStages][kRows][kStride]>(reinterpret_cast<bf16*>(memory) + kStages * kTile * kStride);
  const int64_t first_output = blockIdx.x * kTile, first_row = blockIdx.y * kRows;
  const bf16 *const X = static_cast<const bf16*>(args.x), *const W = static_cast<const bf16*>(args.weights);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int turns = static_cast<int>((args.inputs + kDepth - 1) / kDepth);
  const auto fetch = [&](int turn) {
    const int stage = turn % kStages;
    const int64_t k0 = int64_t{turn} * kDepth;
    for (int at = threadIdx.x; at < (kTile + kRows) * (kDepth / 8); at += 128) {
      const int i = at / (kDepth / 8), k = at % (kDepth / 8) * 8;
      const bool is_weight = i < kTile;
      const int64_t line = is_weight ? first_output + i : first_row + i - kTile;
      const bool valid = k0 + k < args.inputs && line < (is_weight ? args.outputs : args.rows);
      const bf16* from = (is_weight ? W : X) + (valid ? line * args.inputs + k0 + k : 0);
      CopyAsync16(SharedAddress(is_weight ? &w[stage][i][k] : &x[stage][i - kTile][k]), from, valid);
    }
  };
  float sum[kRows / 8][4] = {};
  for (int turn = 0; turn < kStages - 1; ++turn) {
    if (turn < turns) fetch(turn);
    CopyCommit();
  }
  for (int turn = 0; turn < turns; ++turn) {
    CopyWait<kStages - 2>();
    __syncthreads();  // this turn's tiles are there, and the stage that is fetched next is used up
    if (turn + kStages - 1 < turns) fetch(turn + kStages - 1);
    CopyCommit();
    const int stage = turn % kStages;
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32_t a[4];
      LoadMatrices(a, SharedAddress(&w[stage][warp * 16 + lane % 16][k + lane / 16 * 8]));
#pragma unroll
      for (int i = 0; i < kRows / 16; ++i) {
        uint32_t b[4];  // rows 16 i …: (first 8, k), (first 8, k + 8), (last 8, k), (last 8, k + 8)
        LoadMatrices(b, SharedAddress(&x[stage][i * 16 + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]));
        Mma<bf16>(sum[2 * i], a, b[0], b[1]);
        Mma<bf16>(sum[2 * i + 1], a, b[2], b[3]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kRows / 8; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      StoreOne(args, first_row + i * 8 + lane % 4 * 2 + j % 2, first_output + warp * 16 + lane / 4 + j / 2 * 8,
               sum[i][j]);
    }
  }
}

template <int kRows>
absl::Status LaunchBf16(const CudaMatMulArgs& args, cudaStream_t stream) {
  constexpr int kShared = 4 * (kTile + kRows) * (64 + 8) * 2;
  if (absl::Status status = AllowShared(MultiplyBf16<kRows>, kShared); !status.ok()) return status;
  const dim3 grid((args.outputs + kTile - 1) / kTile, (args.rows + kRows - 1) / kRows);
  MultiplyBf16<kRows><<<grid, 128, kShared, stream>>>(args);
  return LaunchStatus("MultiplyBf16");
}

}  // namespace

absl::Status MatMulInOrder(const CudaMatMulArgs& args, bool is_bf16, cudaStream_t stream) {
  if (args.inputs % 8 != 0) {
    return absl::UnimplementedError(absl::StrCat("matmul on the GPU: ", args.inputs, " inputs, not a multiple of 8"));
  }
  if (is_bf16) return args.rows <= 16 ? LaunchBf16<16>(args, stream) : LaunchBf16<64>(args, stream);
  const dim3 grid((args.outputs + kTile - 1) / kTile, (args.rows + kTile - 1) / kTile);
  MultiplyFloat<<<grid, 256, 0, stream>>>(args);
  return LaunchStatus("MultiplyFloat");
}

}  // namespace statehouse::kernels
