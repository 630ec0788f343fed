// What the kernels of a decode step share.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace statehouse::kernels {

inline constexpr int kDecodeThreads = 256;
inline constexpr int kDecodeWarps = kDecodeThreads / 32;
inline constexpr int kDecodeRows = 16;  // of one product
inline constexpr int kTailPart = 64;    // tail rows of one block

// Up to so many splits, one thread adds all parts of two columns, so that large batches run in one wave; more are added
// by groups of threads, with columns spread over blocks so that a small batch fills the chip. The choice depends on the
// splits, as the order of summation does.
inline constexpr int kFewParts = 16;

struct DecodeArgs {
  char* const* slots;
  const int64_t* positions;
  const int64_t* state_ends;
  int num_rows, heads_q, heads_kv;
  int splits;      // blocks over the state per head
  int tail_parts;  // blocks over the tail per head
  int row_groups;  // products of 16 rows per head
  int64_t tail_rows;
  int64_t scales, normalizer, keys, values, gates;  // offsets within a slot
  float scale_squared;
  int degree;
  bool overlaps;    // a kernel may be set up while the one before it runs: compute capability 9.0 and later
  bool is_settled;  // slots, positions, state ends and states are not being written: DecodeParts need not wait for them
  const void* q;
  void* y;
  float* parts;         // [sequence, Hk, row group, part, 16, d]
  float* denominators;  // [sequence, Hk, row group, part, 16]
};

// Where a block of DecodeParts leaves its sums.
struct DecodePart {
  float* y;             // [16, d]
  float* denominators;  // [16]
};
__device__ __forceinline__ DecodePart PartOfBlock(const DecodeArgs& args, int d) {
  const int64_t sequence = blockIdx.z / args.row_groups, group = blockIdx.z % args.row_groups;
  const int64_t part =
      ((sequence * args.heads_kv + blockIdx.y) * args.row_groups + group) * (args.tail_parts + args.splits) +
      blockIdx.x;
  return {args.parts + part * kDecodeRows * d, args.denominators + part * kDecodeRows};
}

// Tail rows that one block answers from, counted from the state's end.
struct TailRange {
  int64_t state_end;
  int first;     // of kTailPart
  int position;  // of the first new row
};

}  // namespace statehouse::kernels
