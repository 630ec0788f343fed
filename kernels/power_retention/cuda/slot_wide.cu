// The sums of AnswerTiles for many queries on tensor cores, for models in bf16: φ(q), the state and the tail are
// rounded to bf16, sums are float32. 256 queries of one head per block, 32 per warp.
//
// State: monomials are taken in blocks of one i and 16 neighbouring j, because for those φ(q) is a fragment of q times
// the number q_i: it is formed in registers. Blocks across the diagonal hold zeros for j < i. The state comes from a
// copy in bf16 that WidenState makes once per wave, with z as further columns, in three numbers of bf16 each. Tail:
// scores, weights and the product with v stay in registers; a column of ones sums the denominator.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/slot_args.cuh"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kQueries = 256;
constexpr int kRows = 64;   // rows of the state or keys in shared memory at a time
constexpr int kStages = 3;  // of state rows
constexpr int kBlocks = kRows / 16;

template <int d>
struct WideShared {
  static constexpr int kWidth = d + 8;  // columns of v or S, then those of the denominator; an odd number of 16 bytes
  bf16 queries[kQueries][d + 8];
  union {
    bf16 state[kStages][kRows][kWidth];
    struct {
      bf16 keys[d][kRows + 8];
      bf16 values[kRows][kWidth];
      float since[kRows];  // log gates from a key to the block's last one
    } tail;
  };
};

template <int d>
struct WideSums {
  static constexpr int kTiles = d / 8 + 1;  // the last: denominators
  float at[2][kTiles][4] = {};
};

// Two rows of `tile` columns of 8 and the next: B of 16 rows from shared memory, row-major.
template <int kStride>
__device__ __forceinline__ void LoadB(uint32_t (&b)[4], const bf16* first, bool single) {
  const int lane = threadIdx.x % 32;
  LoadMatricesTransposed(b, SharedAddress(first + lane % 16 * kStride + (single ? 0 : lane / 16 * 8)));
}

template <int d>
__device__ void LoadQueries(const SlotKernelArgs& args, const TilePlace& place, WideShared<d>& shared) {
  for (int at = threadIdx.x; at < kQueries * d / 2; at += kThreads) {
    const int m = at / (d / 2), l = at % (d / 2) * 2, query = place.first_query + m, group = args.view.group;
    float2 value = make_float2(0, 0);
    if (m < place.num_queries) {
      value = *reinterpret_cast<const float2*>(args.q + (place.segment.first_row + query / group) * args.row_stride +
                                               (place.head * group + query % group) * d + l);
    }
    *reinterpret_cast<uint32_t*>(&shared.queries[m][l]) = Pair<bf16>::Pack(value.x, value.y);
  }
  __syncthreads();  // queries are there
}

template <int d>
__device__ __forceinline__ void LoadQueryTile(uint32_t (&a)[4], const WideShared<d>& shared, int half, int k) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  LoadMatrices(a, SharedAddress(&shared.queries[warp * 32 + half * 16 + lane % 16][k + lane / 16 * 8]));
}

__device__ __forceinline__ uint32_t Repeated(const bf16& x) {
  const uint32_t bits = *reinterpret_cast<const uint16_t*>(&x);
  return bits | bits << 16;
}

// Zeroes what lies before column `first` of a pair whose columns are `column` and the next.
__device__ __forceinline__ uint32_t FromColumn(uint32_t pair, int column, int first) {
  if (column >= first) return pair;
  return column + 1 >= first ? pair & 0xffff0000u : 0u;
}

// One block of monomials: (i, 16 jb … 16 jb + 15).
template <int d>
__device__ __forceinline__ void AddMonomials(const WideShared<d>& shared, const bf16* rows, int i, int jb,
                                             WideSums<d>& sums) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  uint32_t a[2][4];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    LoadQueryTile<d>(a[half], shared, half, jb * 16);
    const int query = warp * 32 + half * 16 + lane / 4, column = jb * 16 + lane % 4 * 2;
    const uint32_t low = Repeated(shared.queries[query][i]), high = Repeated(shared.queries[query + 8][i]);
    a[half][0] = Pair<bf16>::Multiply(a[half][0], low);
    a[half][1] = Pair<bf16>::Multiply(a[half][1], high);
    a[half][2] = Pair<bf16>::Multiply(a[half][2], low);
    a[half][3] = Pair<bf16>::Multiply(a[half][3], high);
    if (jb == i / 16) {
      a[half][0] = FromColumn(a[half][0], column, i);
      a[half][1] = FromColumn(a[half][1], column, i);
      a[half][2] = FromColumn(a[half][2], column + 8, i);
      a[half][3] = FromColumn(a[half][3], column + 8, i);
    }
  }
#pragma unroll
  for (int tile = 0; tile < d / 8; tile += 2) {
    uint32_t b[4];
    LoadB<WideShared<d>::kWidth>(b, rows + tile * 8, false);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Mma<bf16>(sums.at[half][tile], a[half], b[0], b[1]);
      Mma<bf16>(sums.at[half][tile + 1], a[half], b[2], b[3]);
    }
  }
  uint32_t b[4];
  LoadB<WideShared<d>::kWidth>(b, rows + d, true);
#pragma unroll
  for (int half = 0; half < 2; ++half) Mma<bf16>(sums.at[half][d / 8], a[half], b[0], b[1]);
}

// Blocks [first, end) of the table. `state` [D and some, d + 8].
template <int d>
__device__ void AddState(const SlotKernelArgs& args, const bf16* state, int first, int end, WideShared<d>& shared,
                         WideSums<d>& sums) {
  constexpr int kWidth = WideShared<d>::kWidth, kPieces = kWidth / 8;
  const int turns = (end - first + kBlocks - 1) / kBlocks;
  const auto fetch = [&](int turn) {
    for (int at = threadIdx.x; at < kRows * kPieces; at += kThreads) {
      const int row = at / kPieces, piece = at % kPieces, block = first + turn * kBlocks + row / 16;
      if (block >= end) break;
      const int64_t from = args.blocks[block].x + row % 16;
      CopyAsync16(SharedAddress(&shared.state[turn % kStages][row][piece * 8]), state + from * kWidth + piece * 8);
    }
  };
  for (int turn = 0; turn < kStages - 1; ++turn) {
    if (turn < turns) fetch(turn);
    CopyCommit();
  }
  for (int turn = 0; turn < turns; ++turn) {
    CopyWait<kStages - 2>();
    __syncthreads();  // this turn's rows are there, and the stage that is fetched next is used up
    if (turn + kStages - 1 < turns) fetch(turn + kStages - 1);
    CopyCommit();
    for (int i = 0; i < kBlocks; ++i) {
      const int block = first + turn * kBlocks + i;
      if (block >= end) break;
      const int place = args.blocks[block].y;
      AddMonomials<d>(shared, &shared.state[turn % kStages][i * 16][0], place >> 8, place & 255, sums);
    }
  }
}

// Brings keys c0 … of a block, transposed, and their values; keys from `count` on have the weight 0 later.
template <int d>
__device__ void LoadKeys(const SlotView& view, const float* block, int c0, int count, WideShared<d>& shared) {
  for (int at = threadIdx.x; at < d * (kRows / 4); at += kThreads) {
    const int l = at / (kRows / 4), key = at % (kRows / 4) * 4;
    const float4 k = *reinterpret_cast<const float4*>(block + KeyOffset<d>(c0 + key) + l * 32);
    *reinterpret_cast<uint2*>(&shared.tail.keys[l][key]) =
        make_uint2(Pair<bf16>::Pack(k.x, k.y), Pair<bf16>::Pack(k.z, k.w));
  }
  const PanelMatrix<d> values = {block + view.block_v, view.chunk};
  for (int at = threadIdx.x; at < kRows * (d / 4); at += kThreads) {
    const int key = at / 8 % kRows, column = at / (8 * kRows) * 32 + at % 8 * 4;
    const float4 v = *values.Address(c0 + key, column);
    *reinterpret_cast<uint2*>(&shared.tail.values[key][column]) =
        make_uint2(Pair<bf16>::Pack(v.x, v.y), Pair<bf16>::Pack(v.z, v.w));
  }
  if (threadIdx.x < kRows) {
    const int key = threadIdx.x;
    *reinterpret_cast<uint4*>(&shared.tail.values[key][d]) = make_uint4(Pair<bf16>::Pack(1.0f, 0.0f), 0, 0, 0);
    shared.tail.since[key] =
        key < count ? static_cast<float>(GateSum(view, block, c0 + count - 1) - GateSum(view, block, c0 + key)) : 0.0f;
  }
}

// One half-warp tile of 16 queries and the keys in shared memory. `since`: log gates from the block's last key to the
// rows of the lane's two queries; `seen`: how many of its keys each of the two sees.
template <int d>
__device__ __forceinline__ void AddKeys(const WideShared<d>& shared, int half, const float (&since)[2],
                                        const int (&seen)[2], float scale, WideSums<d>& sums) {
  const int lane = threadIdx.x % 32;
  float scores[kRows / 8][4] = {};
#pragma unroll
  for (int k = 0; k < d; k += 16) {
    uint32_t a[4];
    LoadQueryTile<d>(a, shared, half, k);
#pragma unroll
    for (int tile = 0; tile < kRows / 8; tile += 2) {
      uint32_t b[4];
      LoadB<kRows + 8>(b, &shared.tail.keys[k][tile * 8], false);
      Mma<bf16>(scores[tile], a, b[0], b[1]);
      Mma<bf16>(scores[tile + 1], a, b[2], b[3]);
    }
  }
#pragma unroll
  for (int tile = 0; tile < kRows / 8; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = tile * 8 + lane % 4 * 2 + i % 2;
      const float score = scores[tile][i] * scale;
      scores[tile][i] = key < seen[i / 2] ? score * score * __expf(since[i / 2] + shared.tail.since[key]) : 0.0f;
    }
  }
#pragma unroll
  for (int k = 0; k < kRows / 16; ++k) {
    const uint32_t a[4] = {Pair<bf16>::Pack(scores[2 * k][0], scores[2 * k][1]),
                           Pair<bf16>::Pack(scores[2 * k][2], scores[2 * k][3]),
                           Pair<bf16>::Pack(scores[2 * k + 1][0], scores[2 * k + 1][1]),
                           Pair<bf16>::Pack(scores[2 * k + 1][2], scores[2 * k + 1][3])};
#pragma unroll
    for (int tile = 0; tile < d / 8; tile += 2) {
      uint32_t b[4];
      LoadB<WideShared<d>::kWidth>(b, &shared.tail.values[k * 16][tile * 8], false);
      Mma<bf16>(sums.at[half][tile], a, b[0], b[1]);
      Mma<bf16>(sums.at[half][tile + 1], a, b[2], b[3]);
    }
    uint32_t b[4];
    LoadB<WideShared<d>::kWidth>(b, &shared.tail.values[k * 16][d], true);
    Mma<bf16>(sums.at[half][d / 8], a, b[0], b[1]);
  }
}

// Rows [first, end) of the tail.
template <int d>
__device__ void AddTail(const SlotKernelArgs& args, const TilePlace& place, int64_t first, int64_t end,
                        WideShared<d>& shared, WideSums<d>& sums) {
  const SlotView& view = args.view;
  const SlotHead head = place.Head(view);
  const float* own = head.Block(place.chunk, place.holds_state);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int64_t at = first; at < end;) {
    const int64_t chunk = at / view.chunk;
    const int c0 = static_cast<int>(at - chunk * view.chunk);
    const int count = static_cast<int>(min(end - at, min(int64_t{kRows}, int64_t{view.chunk} - c0)));
    const float* block = head.Block(chunk, place.holds_state);
    // From the block's last key to the end of its chunk and on to the start of the queries'.
    double between = -GateSum(view, block, c0 + count - 1);
    if (chunk < place.chunk) {
      between += ChunkGates(head, place.holds_state, chunk, place.chunk) + GateSum(view, block, view.chunk - 1);
    }
    __syncthreads();  // the keys before are used up
    LoadKeys<d>(view, block, c0, count, shared);
    __syncthreads();  // keys are there
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float since[2];
      int seen[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int m = min(warp * 32 + half * 16 + i * 8 + lane / 4, place.num_queries - 1);
        const int row = place.chunk_row + place.RowOf(view, m);
        since[i] = static_cast<float>(between + GateSum(view, own, row));
        seen[i] = chunk < place.chunk ? count : min(count, row + 1 - c0);
      }
      AddKeys<d>(shared, half, since, seen, view.scale, sums);
    }
    at += count;
  }
}

template <int d>
__device__ void Store(const SlotKernelArgs& args, const TilePlace& place, int part, const WideSums<d>& sums) {
  const int parts = args.state_parts + args.tail_parts, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t first = ((int64_t{place.tile} * args.view.heads_kv + place.head) * parts + part) * kQueries;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t query = first + warp * 32 + half * 16 + lane / 4;
#pragma unroll
    for (int tile = 0; tile < d / 8; ++tile) {
      float* const to = args.numerators + query * d + tile * 8 + lane % 4 * 2;
      *reinterpret_cast<float2*>(to) = make_float2(sums.at[half][tile][0], sums.at[half][tile][1]);
      *reinterpret_cast<float2*>(to + 8 * d) = make_float2(sums.at[half][tile][2], sums.at[half][tile][3]);
    }
    // Columns 0, 1 and 2 lie in lanes 0 and 1 of a row's four.
    const float* den = sums.at[half][d / 8];
    const float low = __shfl_down_sync(0xffffffffu, den[0], 1), high = __shfl_down_sync(0xffffffffu, den[2], 1);
    if (lane % 4 == 0) {
      args.denominators[query] = den[0] + (den[1] + low);
      args.denominators[query + 8] = den[2] + (den[3] + high);
    }
  }
}

// Grid (part, head, tile).
template <int d>
__global__ void __launch_bounds__(kThreads) AnswerWide(SlotKernelArgs args) {
  extern __shared__ float4 memory[];
  auto& shared = *reinterpret_cast<WideShared<d>*>(memory);
  const TilePlace place(args, blockIdx.z, blockIdx.y, kQueries);
  const int part = blockIdx.x, tail_part = part - args.state_parts;
  WideSums<d> sums;
  if (tail_part < 0) {
    if (place.first_chunk == 0) return;  // nothing is folded
    LoadQueries<d>(args, place, shared);
    const int segment = args.tiles[place.tile].segment - args.first_segment;
    const bf16* state = static_cast<const bf16*>(args.wide_state) +
                        (int64_t{segment} * args.view.heads_kv + place.head) * args.wide_rows * (d + 8);
    constexpr int kAll = d * (d / 16 + 1) / 2;
    AddState<d>(args, state, kAll * part / args.state_parts, kAll * (part + 1) / args.state_parts, shared, sums);
  } else {
    if (tail_part >= place.NumTailParts(args)) return;
    LoadQueries<d>(args, place, shared);
    const int64_t begin = (place.FirstTailPart(args) + tail_part) * args.part_rows;
    AddTail<d>(args, place, max(begin, place.first_chunk * args.view.chunk),
               min(begin + args.part_rows, place.LastPosition(args.view) + 1), shared, sums);
  }
  Store<d>(args, place, part, sums);
}

// Grid (rows / 8, head, segment of the wave): a warp per row of S and its z.
template <int d>
__global__ void __launch_bounds__(kThreads) WidenState(SlotKernelArgs args) {
  const SlotSegment segment = args.segments[blockIdx.z];
  const SlotHead head(args.view, segment.memory, args.layer_idx, blockIdx.y);
  if (!head.HoldsState() || head.header()->folded_chunks == 0) return;
  const int row = blockIdx.x * (kThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= args.view.expanded) return;
  const PanelMatrix<d> state = {head.State(), args.view.expanded};
  bf16* const to = static_cast<bf16*>(args.wide_state) +
                   ((int64_t{blockIdx.z} * args.view.heads_kv + blockIdx.y) * args.wide_rows + row) * (d + 8);
  if (lane < d / 4) {
    const float4 s = *state.Address(row, lane * 4);
    *reinterpret_cast<uint2*>(to + lane * 4) = make_uint2(Pair<bf16>::Pack(s.x, s.y), Pair<bf16>::Pack(s.z, s.w));
  }
  if (lane == 0) {
    const float z = head.Normalizer()[row];
    const float first = __bfloat162float(__float2bfloat16_rn(z));
    const float second = __bfloat162float(__float2bfloat16_rn(z - first));
    *reinterpret_cast<uint4*>(to + d) =
        make_uint4(Pair<bf16>::Pack(first, second), Pair<bf16>::Pack(z - first - second, 0.0f), 0, 0);
  }
}

template <int d>
absl::Status Launch(const SlotKernelArgs& args, int num_tiles, cudaStream_t stream) {
  constexpr int kShared = sizeof(WideShared<d>);
  if (absl::Status status = AllowShared(AnswerWide<d>, kShared); !status.ok()) return status;
  const dim3 grid(args.state_parts + args.tail_parts, args.view.heads_kv, num_tiles);
  AnswerWide<d><<<grid, kThreads, kShared, stream>>>(args);
  return LaunchStatus("AnswerWide");
}

}  // namespace

int WideKernelSharedBytes(const RetentionLayout& layout) {
  if (!HasWideKernel(layout)) return 0;
  return layout.shape().head_dim == 64 ? sizeof(WideShared<64>) : sizeof(WideShared<128>);
}

absl::Status LaunchSlotWiden(const SlotKernelArgs& args, int d, int num_segments, cudaStream_t stream) {
  const dim3 grid((args.view.expanded + kThreads / 32 - 1) / (kThreads / 32), args.view.heads_kv, num_segments);
  if (d == 64) {
    WidenState<64><<<grid, kThreads, 0, stream>>>(args);
  } else {
    WidenState<128><<<grid, kThreads, 0, stream>>>(args);
  }
  return LaunchStatus("WidenState");
}

absl::Status LaunchSlotAnswerWide(const SlotKernelArgs& args, int d, int num_tiles, cudaStream_t stream) {
  return d == 64 ? Launch<64>(args, num_tiles, stream) : Launch<128>(args, num_tiles, stream);
}

}  // namespace statehouse::kernels
