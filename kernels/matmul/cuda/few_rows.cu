// Weights go from device memory into shared memory by asynchronous copies, 48 KB of a block under way at once, several
// blocks per multiprocessor; a thread uses only what it asked for itself, so no barrier holds it up. Rows of x are the
// left operand of 16x8x16 products; both operands number the summed dimension in the same permuted way, so that each
// lane's 16 bytes serve as they come.
#include "absl/strings/str_cat.h"
#include "kernels/activation/cuda/gelu.cuh"
#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/early_launch.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/matmul/cuda/few_rows.h"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kDepth = 12;  // copies of weights under way per thread
// Bytes of x that a block holds: with the ring not more than the 99 KB that compute capability 8.6 gives it.
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

// Four neighbouring numbers as bf16.
__device__ __forceinline__ uint2 Packed(const float4& x) {
  return make_uint2(Pair<bf16>::Pack(x.x, x.y), Pair<bf16>::Pack(x.z, x.w));
}

// The norm of rows of at most kMostNormedInputs into shared memory. Its weights are read when it is made, before the
// rows are there.
class RowNorm {
 public:
  __device__ __forceinline__ RowNorm(const CudaRowNorm& norm, int inputs) : norm_(norm), inputs_(inputs) {
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      weight_[i] = bias_[i] = {};
      if (!IsMine(i)) continue;
      weight_[i] = reinterpret_cast<const float4*>(norm.weight)[At(i)];
      if (norm.bias != nullptr) bias_[i] = reinterpret_cast<const float4*>(norm.bias)[At(i)];
    }
  }

  __device__ __forceinline__ void Stage(const float* x, bf16* staged) const {
    __shared__ float sums[kWarps];
    float4 row[kMine];
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kMine; ++i) row[i] = IsMine(i) ? reinterpret_cast<const float4*>(x)[At(i)] : float4{};
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const float4& r = row[i];
      sum += norm_.is_rms ? (r.x * r.x + r.y * r.y) + (r.z * r.z + r.w * r.w) : (r.x + r.y) + (r.z + r.w);
    }
    const float inverse_size = 1.0f / static_cast<float>(inputs_);
    float mean = 0, variance = BlockSum<kThreads>(sum, sums) * inverse_size;
    if (!norm_.is_rms) {
      mean = variance;
      float squares = 0;
#pragma unroll
      for (int i = 0; i < kMine; ++i) {
        if (!IsMine(i)) continue;
        const float4 off = {row[i].x - mean, row[i].y - mean, row[i].z - mean, row[i].w - mean};
        squares += (off.x * off.x + off.y * off.y) + (off.z * off.z + off.w * off.w);
      }
      variance = BlockSum<kThreads>(squares, sums) * inverse_size;
    }
    const float scale = 1.0f / sqrtf(variance + norm_.epsilon);
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      if (!IsMine(i)) continue;
      const float4 r = row[i], w = weight_[i], b = bias_[i];
      reinterpret_cast<uint2*>(staged)[At(i)] =
          Packed({(r.x - mean) * scale * w.x + b.x, (r.y - mean) * scale * w.y + b.y, (r.z - mean) * scale * w.z + b.z,
                  (r.w - mean) * scale * w.w + b.w});
    }
  }

 private:
  static constexpr int kMine = kMostNormedInputs / 4 / kThreads;  // float4 of a thread

  static __device__ __forceinline__ int At(int i) { return i * kThreads + static_cast<int>(threadIdx.x); }
  __device__ __forceinline__ bool IsMine(int i) const { return At(i) * 4 < inputs_; }

  const CudaRowNorm& norm_;
  const int inputs_;
  float4 weight_[kMine], bias_[kMine];
};

// How a block gets x: piece by piece as needed, through shared memory, or normalised into it.
enum class Input { kPieces, kStaged, kNormed };

// Grid (outputs / 8 kTiles). A block forms 8 kTiles outputs of all rows; its warps take pieces of the inputs in turn.
// kHalves: 1 for up to 8 rows, 2 for up to 16.
template <int kTiles, int kHalves, Input kInput>
__global__ void __launch_bounds__(kThreads, 4) MultiplyFewRows(CudaFewRowsArgs args) {
  constexpr bool kStaged = kInput != Input::kPieces;
  constexpr int kOutputs = 8 * kTiles, kRows = 8 * kHalves, kRing = kDepth / kTiles;  // pieces under way
  extern __shared__ float4 memory[];
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
  const RowNorm norm(args.norm, kInput == Input::kNormed ? inputs : 0);
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
  if constexpr (kInput == Input::kNormed) {
    for (int i = 0; i < rows; ++i) {
      norm.Stage(static_cast<const float*>(args.x) + int64_t{i} * inputs, staged + i * StagedStride(inputs));
    }
  } else if constexpr (kStaged) {
    StageRows(x, rows, inputs, staged);
  }
  if constexpr (kStaged) __syncthreads();  // x is there
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
  // A warp's sums [row][8] of each tile lie where its first weights did: shared memory is short.
  const auto sums_of = [&](int tile, int from_warp) {
    return reinterpret_cast<float*>(&ring[0][tile][from_warp * 32]);
  };
  static_assert(kRows * 8 * 4 <= 32 * 16);
  __syncwarp();  // they are used up
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      *reinterpret_cast<float2*>(sums_of(tile, warp) + (half * 8 + group) * 8 + lane % 4 * 2) =
          make_float2(sum[tile][half * 2], sum[tile][half * 2 + 1]);
    }
  }
  __syncthreads();  // warps' sums are there
  if (!finishes) return;
  float total = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) total += sums_of(output / 8, i)[row * 8 + output % 8];
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
  auto kernel =
      is_staged ? MultiplyFewRows<kTiles, kHalves, Input::kStaged> : MultiplyFewRows<kTiles, kHalves, Input::kPieces>;
  if constexpr (kHalves == 1) {
    if (args.norm.weight != nullptr) kernel = MultiplyFewRows<kTiles, kHalves, Input::kNormed>;
  }
  const int bytes = kRingBytes + (is_staged ? static_cast<int>(staged) : 0);
  if (absl::Status status = AllowShared(kernel, kRingBytes + kMostStaged); !status.ok()) return status;
  return LaunchEarly("MultiplyFewRows", kernel, grid, kThreads, bytes, stream, args);
}

}  // namespace

bool HasFewRowsKernel(const CudaFewRowsArgs& args) {
  const bool has_norm = args.norm.weight != nullptr;
  return args.rows >= 1 && args.rows <= (has_norm ? kMostNormedRows : kMostFewRows) &&
         args.inputs % (2 * kPiece * kWarps) == 0 && (!has_norm || args.inputs <= kMostNormedInputs);
}

absl::Status CudaMultiplyFewRows(const CudaFewRowsArgs& args, cudaStream_t stream) {
  if (!HasFewRowsKernel(args)) {
    return absl::UnimplementedError(absl::StrCat("few rows on the GPU: ", args.rows, " rows of ", args.inputs,
                                                 " inputs",
                                                 args.norm.weight != nullptr ? ", normalised on the way" : ""));
  }
  if (args.add && args.y_is_bf16) return absl::UnimplementedError("few rows on the GPU: adding to a bf16 y");
  // Wide matrices: fewer blocks, each of which reads all of x.
  constexpr int64_t kWide = 8192;
  if (args.outputs >= kWide) {
    if (args.rows <= kMostNormedRows) return Launch<2, 1>(args, stream);
    return args.rows <= 8 ? Launch<3, 1>(args, stream) : Launch<2, 2>(args, stream);
  }
  return args.rows <= 8 ? Launch<1, 1>(args, stream) : Launch<1, 2>(args, stream);
}

}  // namespace statehouse::kernels
