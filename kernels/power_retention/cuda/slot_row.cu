// AnswerRow: one new row of each sequence, from the product that makes its heads to its answers, in one kernel: heads
// are made ready, the row is written to its slot, state and tail are read once, parts are added in order.
#include <cuda_bf16.h>

#include <cfloat>

#include "kernels/cuda/early_launch.h"
#include "kernels/power_retention/cuda/slot_row.cuh"

namespace statehouse::kernels {
namespace {

// Columns column … of query m's answer.
template <int d>
__device__ __forceinline__ void StoreAnswer(const SlotKernelArgs& args, const TilePlace& place, int m, int column,
                                            const float4& y) {
  const int query_head = place.head * args.view.group + m;
  const int64_t at = int64_t{place.segment.first_row} * args.view.group * args.view.heads_kv + query_head;
  const int64_t to = at * d + column;
  if (args.y_is_bf16) {
    *reinterpret_cast<uint2*>(static_cast<bf16*>(args.y) + to) =
        make_uint2(Pair<bf16>::Pack(y.x, y.y), Pair<bf16>::Pack(y.z, y.w));
  } else {
    *reinterpret_cast<float4*>(static_cast<float*>(args.y) + to) = y;
  }
}

__device__ __forceinline__ float Divided(float numerator, float denominator) {
  return denominator >= FLT_MIN ? numerator / denominator + 0.0f : 0.0f;
}
__device__ __forceinline__ float4 Divided(const float4& sum, float denominator) {
  return make_float4(Divided(sum.x, denominator), Divided(sum.y, denominator), Divided(sum.z, denominator),
                     Divided(sum.w, denominator));
}
__device__ __forceinline__ void Add(float4& sum, const float4& more) {
  sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
}

// Where a head's parts lie: [part, query, d] and [part, query].
struct RowParts {
  float* numerators;
  float* denominators;
};

// Adds the warps' sums in order. One part: the answer. Else they are left for those who add the parts.
template <int d>
__device__ void AddWarps(const SlotKernelArgs& args, const RowShared<d>& shared, int part, const RowParts& to) {
  const TilePlace& place = shared.place;
  for (int at = threadIdx.x; at < place.num_queries * (d / 4); at += kRowThreads) {
    const int m = at / (d / 4), column = at % (d / 4) * 4;
    float4 sum = {};
    float denominator = 0;
#pragma unroll
    for (int warp = 0; warp < kRowWarps; ++warp) {
      Add(sum, *reinterpret_cast<const float4*>(&shared.sums.y[warp][m][column]));
      denominator += shared.sums.denominators[warp][m];
    }
    if (shared.work.parts == 1) {
      StoreAnswer<d>(args, place, m, column, Divided(sum, denominator));
    } else {
      const int row = part * kRowQueries + m;
      *reinterpret_cast<float4*>(to.numerators + row * d + column) = sum;
      if (column == 0) to.denominators[row] = denominator;
    }
  }
}

// Says that the block, whose threads have met, is done with what it wrote, and how many of `parts` said so before;
// begins anew by itself. What those wrote may be read afterwards.
__device__ __forceinline__ uint32_t Arrive(uint32_t* arrivals, int parts) {
  uint32_t before;
  asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(arrivals), "r"(parts - 1)
               : "memory");
  return before;
}
__device__ __forceinline__ uint32_t ReadTurn(const uint32_t* turns) {
  uint32_t turn;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(turn) : "l"(turns) : "memory");
  return turn;
}

// Whether this block is the last of its head's to come here; what the others wrote before is then to be seen.
__device__ bool ComesLast(uint32_t* arrivals, int parts, bool* shared) {
  __syncthreads();  // the part is written
  if (threadIdx.x == 0) *shared = Arrive(arrivals, parts) == static_cast<uint32_t>(parts - 1);
  __syncthreads();  // all know
  return *shared;
}

// Waits until all blocks of the head have come here. REQUIRES: they run at once. `turns` counts such meetings; `turn`
// is what thread 0 read there before.
__device__ void Meet(uint32_t* arrivals, uint32_t* turns, uint32_t turn, int parts) {
  __syncthreads();  // the part is written
  if (threadIdx.x == 0) {
    if (Arrive(arrivals, parts) == static_cast<uint32_t>(parts - 1)) {
      asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(turns) : "memory");
    } else {
      while (ReadTurn(turns) == turn) {
      }
    }
  }
  __syncthreads();  // all have come
}

// All of a head's answers, by its last block.
template <int d>
__device__ void AddParts(const SlotKernelArgs& args, const TilePlace& place, int parts, const RowParts& from) {
  for (int at = threadIdx.x; at < place.num_queries * (d / 4); at += kRowThreads) {
    const int m = at / (d / 4), column = at % (d / 4) * 4;
    float4 sum = {};
    float denominator = 0;
    constexpr int kAhead = 4;  // under way at once
    for (int part = 0; part < parts; part += kAhead) {
      float4 held[kAhead];
      float held_denominators[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        held[i] = {};
        held_denominators[i] = 0;
        if (part + i >= parts) continue;
        const int row = (part + i) * kRowQueries + m;
        held[i] = __ldcg(reinterpret_cast<const float4*>(from.numerators + row * d + column));
        held_denominators[i] = __ldcg(from.denominators + row);
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        Add(sum, held[i]);
        denominator += held_denominators[i];
      }
    }
    StoreAnswer<d>(args, place, m, column, Divided(sum, denominator));
  }
}

// A block's share of a head's answers, 32 numbers at a time: each warp adds a stretch of the parts.
template <int d>
__device__ void AddShare(const SlotKernelArgs& args, int parts, int part, const RowParts& from, RowShared<d>& shared) {
  const TilePlace& place = shared.place;
  auto& stretches = shared.stretches;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int at = part * 32; at < place.num_queries * d; at += parts * 32) {
    const int m = at / d, column = at % d;
    const int first = parts * warp / kRowWarps, end = parts * (warp + 1) / kRowWarps;
    float sum = 0, denominator = 0;
    // A lane per part: a plan has at most 255 parts, so that a stretch is not longer than a warp.
    const float own = first + lane < end ? __ldcg(from.denominators + (first + lane) * kRowQueries + m) : 0.0f;
    constexpr int kAhead = 9;  // under way at once
    for (int begin = first; begin < end; begin += kAhead) {
      float held[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int row = (begin + i) * kRowQueries + m;
        held[i] = begin + i < end ? __ldcg(from.numerators + row * d + column + lane) : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) sum += held[i];
    }
    for (int i = 0; i < end - first; ++i) denominator += __shfl_sync(0xffffffffu, own, i);
    stretches.y[warp][lane] = sum;
    if (lane == 0) stretches.denominators[warp] = denominator;
    __syncthreads();  // stretches are there
    if (warp == 0 && lane < 8) {
      float4 all = {};
      denominator = 0;
#pragma unroll
      for (int i = 0; i < kRowWarps; ++i) {
        Add(all, *reinterpret_cast<const float4*>(&stretches.y[i][lane * 4]));
        denominator += stretches.denominators[i];
      }
      StoreAnswer<d>(args, place, m, column + lane * 4, Divided(all, denominator));
    }
    __syncthreads();  // they may be overwritten
  }
}

// Finds the block's place and work. False: there is nothing for it.
template <int d>
__device__ bool Prepare(const SlotKernelArgs& args, RowShared<d>& shared) {
  TilePlace place(args, args.segments[blockIdx.z], blockIdx.z, blockIdx.y);
  // The fold that was due is done; the header says so when all blocks have read it.
  const bool is_due = place.chunk_row == 0 && place.holds_state && place.first_chunk < place.chunk - 1;
  if (is_due) ++place.first_chunk;
  const RowWork work(args.view, place, args.state_parts, blockIdx.x);
  if (threadIdx.x == 0) {
    shared.place = place;
    shared.work = work;
    shared.is_due = is_due;
  }
  __syncthreads();  // they are there
  return static_cast<int>(blockIdx.x) < work.parts;
}

// Adds the parts; the last to do so says what is folded.
template <int d, bool kMeets>
__device__ void Finish(const SlotKernelArgs& args, RowShared<d>& shared) {
  const TilePlace& place = shared.place;
  const int head = place.tile * args.view.heads_kv + place.head, part = blockIdx.x, count = shared.work.parts;
  const int64_t first = int64_t{head} * args.state_parts * kRowQueries;
  const RowParts parts = {args.numerators + first * d, args.denominators + first};
  uint32_t* const arrivals = args.arrivals + 2 * head;
  const uint32_t turn = kMeets && count > 1 && threadIdx.x == 0 ? ReadTurn(arrivals + 1) : 0;
  AddWarps(args, shared, part, parts);
  bool ends = count == 1;
  if (count > 1) {
    if constexpr (kMeets) {
      Meet(arrivals, arrivals + 1, turn, count);
      AddShare(args, count, part, parts, shared);
      ends = part == 0;
    } else {
      ends = ComesLast(arrivals, count, &shared.is_last);
      if (ends) AddParts<d>(args, place, count, parts);
    }
  }
  if (ends && shared.is_due && threadIdx.x == 0) place.Head(args.view).header()->folded_chunks = place.first_chunk;
}

// Grid (part, head, sequence). kMeets: all blocks run at once.
template <int d, bool kMeets>
__global__ void __launch_bounds__(kRowThreads, 2) AnswerRow(const __grid_constant__ SlotKernelArgs args) {
  extern __shared__ float4 memory[];
  auto& shared = *reinterpret_cast<RowShared<d>*>(memory);
  if (!Prepare(args, shared)) return;
  RowAnswer<d> answer(args, shared);
  answer.Begin();
  LetDependentsStart();  // not before: the weights of the product that follows come behind the state
  WaitForResults();
  answer.LoadRow();
  answer.AddState();
  answer.AddTail();
  answer.LeaveSums();
  Finish<d, kMeets>(args, shared);
}

template <int d>
absl::Status Launch(const SlotKernelArgs& args, int num_tiles, bool meets, bool overlaps, cudaStream_t stream) {
  constexpr int kShared = sizeof(RowShared<d>);
  const auto kernel = meets ? AnswerRow<d, true> : AnswerRow<d, false>;
  if (absl::Status status = AllowShared(kernel, kShared); !status.ok()) return status;
  const dim3 grid(args.state_parts, args.view.heads_kv, num_tiles);
  return LaunchPerhapsEarly(overlaps, "AnswerRow", kernel, grid, kRowThreads, kShared, stream, args);
}

}  // namespace

int RowKernelSharedBytes(const RetentionLayout& layout) {
  if (!HasRowKernel(layout)) return 0;
  return layout.shape().head_dim == 64 ? sizeof(RowShared<64>) : sizeof(RowShared<128>);
}

absl::Status LaunchSlotAnswerRow(const SlotKernelArgs& args, int d, int num_tiles, bool meets, bool overlaps,
                                 cudaStream_t stream) {
  return d == 64 ? Launch<64>(args, num_tiles, meets, overlaps, stream)
                 : Launch<128>(args, num_tiles, meets, overlaps, stream);
}

}  // namespace statehouse::kernels
