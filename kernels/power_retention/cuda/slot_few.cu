// The sums of AnswerTiles for few queries, bound by reading the state: every element of S goes from device memory into
// the registers of the one thread that multiplies it with all queries. Elements are summed in interleaved chains
// (thread, then warp), so the bits are not those of AnswerTiles.
#include "kernels/cuda/early_launch.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/slot_tile.cuh"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kDepth = 64;  // monomials or keys at a time
constexpr int kStages = 3;  // turns of monomials on their way, the one in use included

// How a block's threads share the columns and rows of the state.
template <int d>
struct FewShape {
  static constexpr int kWidth = PanelMatrix<d>::kWidth, kPanels = d / kWidth;
  static constexpr int kWarpsPerPanel = kWarps / kPanels;
  static constexpr int kLanesPerRow = kWidth / 4, kRowsPerLoad = 32 / kLanesPerRow;
  static constexpr int kStep = kWarpsPerPanel * kRowsPerLoad;  // rows that a panel's warps take together
  static constexpr int kLoads = kDepth / kStep;                // per thread and turn
};

template <int d, int kQueries>
struct FewShared {
  float queries[d][kQueries];
  float coef[2][kDepth][kQueries];
  double gates[kQueries];
  union {
    // Rows of the state on their way from memory; each thread reads only what it asked for itself.
    float4 rows[kStages][FewShape<d>::kLoads][kThreads];
    // Of the tail: keys for all threads, and values as the rows of the state.
    struct {
      float keys[d][kDepth];
      float4 values[FewShape<d>::kLoads][kThreads];
    } tail;
    float sums[kWarps][kQueries][PanelMatrix<d>::kWidth];
  };
};

template <int d, int kQueries>
class FewAnswer {
 public:
  using Shape = FewShape<d>;
  static constexpr int kWidth = Shape::kWidth, kPanels = Shape::kPanels, kWarpsPerPanel = Shape::kWarpsPerPanel;
  static constexpr int kLanesPerRow = Shape::kLanesPerRow, kRowsPerLoad = Shape::kRowsPerLoad;
  static constexpr int kStep = Shape::kStep, kLoads = Shape::kLoads;
  static constexpr int kDens = (kQueries + kWarps - 1) / kWarps;  // denominators per warp

  __device__ FewAnswer(const SlotKernelArgs& args, FewShared<d, kQueries>& shared)
      : args_(args),
        place_(args, blockIdx.z, blockIdx.y, kQueries),
        shared_(shared),
        lane_(threadIdx.x % 32),
        warp_(threadIdx.x / 32),
        column_(warp_ % kPanels * kWidth + lane_ % kLanesPerRow * 4),
        row_(warp_ / kPanels * kRowsPerLoad + lane_ / kLanesPerRow) {}

  // Waits for the kernels before.
  __device__ const TilePlace& Settle() {
    WaitForResults();
    place_.Refresh(args_.view);
    return place_;
  }

  __device__ void LoadQueries() {
    for (int at = threadIdx.x; at < kQueries * d; at += kThreads) {
      const int m = at / d, l = at % d, query = place_.first_query + m, group = args_.view.group;
      float value = 0;
      if (m < place_.num_queries) {
        value = args_.q[(place_.segment.first_row + query / group) * args_.row_stride +
                        (place_.head * group + query % group) * d + l];
      }
      shared_.queries[l][m] = value;
    }
    __syncthreads();  // queries are there
  }

  // Asks for the first of monomials [first, end). The state stands when the rows of this step are appended, so this
  // need not wait for the kernel that does so.
  __device__ void BeginState(int first, int end) {
    const PanelMatrix<d> state = {place_.Head(args_.view).State(), args_.view.expanded};
#pragma unroll
    for (int turn = 0; turn < kStages - 1; ++turn) AskForRows(state, first + turn * kDepth, end, turn);
  }

  // REQUIRES: BeginState() with the same.
  __device__ void AddState(int first, int end) {
    const SlotHead head = place_.Head(args_.view);
    const PanelMatrix<d> state = {head.State(), args_.view.expanded};
    const float* z = head.Normalizer();
    float weight[kDepth / 32], next_weight[kDepth / 32];
    const auto load_weights = [&](int m0, float(&to)[kDepth / 32]) {
#pragma unroll
      for (int i = 0; i < kDepth / 32; ++i) to[i] = m0 + i * 32 + lane_ < end ? z[m0 + i * 32 + lane_] : 0.0f;
    };
    load_weights(first, next_weight);
    int stage = 0;
    for (int m0 = first, turn = 0; m0 < end; m0 += kDepth, turn ^= 1) {
      const int count = min(kDepth, end - m0);
      AskForRows(state, m0 + (kStages - 1) * kDepth, end, stage == 0 ? kStages - 1 : stage - 1);
#pragma unroll
      for (int i = 0; i < kDepth / 32; ++i) weight[i] = next_weight[i];
      load_weights(m0 + kDepth, next_weight);
      for (int at = threadIdx.x; at < kDepth * kQueries; at += kThreads) {
        const int m = at / kQueries, query = at % kQueries;
        float expanded = 0;
        if (m < count) {
          const uchar2 pair = args_.pairs[m0 + m];
          expanded = shared_.queries[pair.x][query] * shared_.queries[pair.y][query];
        }
        shared_.coef[turn][m][query] = expanded;
      }
      CopyWait<kStages - 1>();
      __syncthreads();  // coefficients are there; those of two turns ago were used up before the last barrier
      AddDenominators(turn, weight);
      AddRows(turn, [&](int i) { return shared_.rows[stage][i][threadIdx.x]; });
      stage = stage + 1 == kStages ? 0 : stage + 1;
    }
    CopyWait<0>();
  }

  // Asks for the first keys and values of rows [first, end).
  __device__ void BeginTail(int64_t first, int64_t end) {
    const SlotView& view = args_.view;
    const int64_t chunk = first / view.chunk;
    const int begin = static_cast<int>(first - chunk * view.chunk);
    const int count = static_cast<int>(min(end - first, min(int64_t{kDepth}, int64_t{view.chunk} - begin)));
    AskForKeys(place_.Head(view).Block(chunk, place_.holds_state), begin, count);
  }

  // REQUIRES: BeginTail() with the same.
  __device__ void AddTail(int64_t first, int64_t end) {
    const SlotView& view = args_.view;
    const SlotHead head = place_.Head(view);
    if (threadIdx.x < kQueries) {
      const int row = place_.RowOf(view, min(static_cast<int>(threadIdx.x), place_.num_queries - 1));
      shared_.gates[threadIdx.x] = GateSum(view, head.Block(place_.chunk, place_.holds_state), place_.chunk_row + row);
    }
    __syncthreads();  // gates are there
    int turn = 0;
    for (int64_t at = first; at < end;) {
      const int64_t chunk = at / view.chunk;
      const int begin = static_cast<int>(at - chunk * view.chunk);
      const int stop = static_cast<int>(min(end - chunk * view.chunk, static_cast<int64_t>(view.chunk)));
      const float* block = head.Block(chunk, place_.holds_state);
      double between = 0;
      if (chunk < place_.chunk) {
        between = ChunkGates(head, place_.holds_state, chunk, place_.chunk) + GateSum(view, block, view.chunk - 1);
      }
      for (int c0 = begin; c0 < stop; c0 += kDepth, turn ^= 1) {
        if (chunk * view.chunk + c0 > first) AskForKeys(block, c0, min(kDepth, stop - c0));
        AddKeys(block, chunk, c0, min(kDepth, stop - c0), between, turn);
      }
      at = chunk * view.chunk + stop;
    }
  }

  __device__ void Store(int part) {
    const int parts = args_.state_parts + args_.tail_parts;
    const int64_t first = ((int64_t{place_.tile} * args_.view.heads_kv + place_.head) * parts + part) * kQueries;
    __syncthreads();  // all rows are used up
#pragma unroll
    for (int query = 0; query < kQueries; ++query) {
      // Lanes that hold the same column.
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int step = 16; step >= kLanesPerRow; step /= 2) {
          sum_[query][i] += __shfl_xor_sync(0xffffffffu, sum_[query][i], step);
        }
      }
      if (lane_ < kLanesPerRow) {
        *reinterpret_cast<float4*>(&shared_.sums[warp_][query][lane_ * 4]) =
            make_float4(sum_[query][0], sum_[query][1], sum_[query][2], sum_[query][3]);
      }
    }
    __syncthreads();  // sums are there
    for (int at = threadIdx.x; at < kQueries * d; at += kThreads) {
      const int query = at / d, column = at % d;
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kWarpsPerPanel; ++i) {
        sum += shared_.sums[i * kPanels + column / kWidth][query][column % kWidth];
      }
      args_.numerators[(first + query) * d + column] = sum;
    }
#pragma unroll
    for (int i = 0; i < kDens; ++i) {
#pragma unroll
      for (int step = 16; step > 0; step /= 2) den_[i] += __shfl_xor_sync(0xffffffffu, den_[i], step);
      if (lane_ == 0 && warp_ + i * kWarps < kQueries) args_.denominators[first + warp_ + i * kWarps] = den_[i];
    }
  }

 private:
  // Keys c0 … of a block and their values; c0 is a multiple of 32.
  __device__ void AskForKeys(const float* block, int c0, int count) {
    const SlotView& view = args_.view;
    for (int at = threadIdx.x; at < d * (kDepth / 4); at += kThreads) {
      const int key = at % (kDepth / 4) * 4, l = at / (kDepth / 4), c = c0 + (key < count ? key : 0);
      CopyAsync16(SharedAddress(&shared_.tail.keys[l][key]), block + KeyOffset<d>(c) + l * KeyWidth(view, c),
                  key < count);
    }
    const PanelMatrix<d> values = {block + view.block_v, view.chunk};
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int row = i * kStep + row_;
      CopyAsync16(SharedAddress(&shared_.tail.values[i][threadIdx.x]),
                  values.Address(c0 + (row < count ? row : 0), column_), row < count);
    }
    CopyCommit();
  }

  // Zeros from `end` on. A group of copies in any case, so that they can be counted.
  __device__ void AskForRows(const PanelMatrix<d>& from, int first, int end, int stage) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int row = first + i * kStep + row_;
      const bool valid = row < end;
      CopyAsync16(SharedAddress(&shared_.rows[stage][i][threadIdx.x]), from.Address(valid ? row : end - 1, column_),
                  valid);
    }
    CopyCommit();
  }

  template <typename Rows>
  __device__ void AddRows(int turn, const Rows& rows) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const float4 row = rows(i);
      const float* coef = shared_.coef[turn][i * kStep + row_];
#pragma unroll
      for (int query = 0; query < kQueries; query += 4) {
        const float4 four = *reinterpret_cast<const float4*>(coef + query);
        const float c[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          sum_[query + j][0] = fmaf(c[j], row.x, sum_[query + j][0]);
          sum_[query + j][1] = fmaf(c[j], row.y, sum_[query + j][1]);
          sum_[query + j][2] = fmaf(c[j], row.z, sum_[query + j][2]);
          sum_[query + j][3] = fmaf(c[j], row.w, sum_[query + j][3]);
        }
      }
    }
  }

  __device__ void AddDenominators(int turn, const float (&weight)[kDepth / 32]) {
#pragma unroll
    for (int i = 0; i < kDens; ++i) {
      const int query = warp_ + i * kWarps;
      if (query >= kQueries) break;
#pragma unroll
      for (int j = 0; j < kDepth / 32; ++j)
        den_[i] = fmaf(shared_.coef[turn][j * 32 + lane_][query], weight[j], den_[i]);
    }
  }

  // The keys that were asked for, of one chunk from row c0 on. Two half-blocks of keys, four sets of queries.
  __device__ void AddKeys(const float* block, int64_t chunk, int c0, int count, double between, int turn) {
    constexpr int kOwn = kQueries / 4;
    const SlotView& view = args_.view;
    const int at = warp_ % 2 * 32 + lane_, first_query = warp_ / 2 * kOwn;
    const double since_key = at < count ? between - GateSum(view, block, c0 + at) : 0.0;
    CopyWait<0>();
    __syncthreads();  // keys are there
    float score[kOwn] = {};
#pragma unroll 16
    for (int l = 0; l < d; ++l) {
      const float k = shared_.tail.keys[l][at];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) score[i] = fmaf(shared_.queries[l][first_query + i], k, score[i]);
    }
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int m = first_query + i, row = place_.RowOf(view, min(m, place_.num_queries - 1));
      const bool seen = chunk < place_.chunk || c0 + at <= place_.chunk_row + row;
      float weight = 0;
      if (at < count && seen) {
        weight = Power(score[i] * view.scale, view.degree) * expf(static_cast<float>(shared_.gates[m] + since_key));
      }
      shared_.coef[turn][at][m] = weight;
    }
    const float ones[kDepth / 32] = {1.0f, 1.0f};
    __syncthreads();  // weights are there
    AddDenominators(turn, ones);
    AddRows(turn, [&](int i) { return shared_.tail.values[i][threadIdx.x]; });
  }

  const SlotKernelArgs& args_;
  TilePlace place_;
  FewShared<d, kQueries>& shared_;
  const int lane_, warp_;
  const int column_, row_;  // what this thread reads of every kStep rows
  float sum_[kQueries][4] = {};
  float den_[kDens] = {};
};

// Grid (part, head, tile).
template <int d, int kQueries>
__global__ void __launch_bounds__(kThreads, 2) AnswerFew(SlotKernelArgs args) {
  extern __shared__ float4 memory[];
  auto& shared = *reinterpret_cast<FewShared<d, kQueries>*>(memory);
  LetDependentsStart();
  const int part = blockIdx.x, tail_part = part - args.state_parts;
  FewAnswer<d, kQueries> answer(args, shared);
  if (tail_part < 0) {
    const int first = PartBegin(args.view.expanded, args.state_parts, part);
    const int end = PartBegin(args.view.expanded, args.state_parts, part + 1);
    answer.BeginState(first, end);
    if (answer.Settle().first_chunk == 0) {  // nothing is folded
      CopyWait<0>();
      return;
    }
    answer.LoadQueries();
    answer.AddState(first, end);
  } else {
    const TilePlace& place = answer.Settle();
    if (tail_part >= place.NumTailParts(args)) return;
    const int64_t begin = (place.FirstTailPart(args) + tail_part) * args.part_rows;
    const int64_t first = max(begin, place.first_chunk * args.view.chunk);
    const int64_t end = min(begin + args.part_rows, place.LastPosition(args.view) + 1);
    answer.BeginTail(first, end);
    answer.LoadQueries();
    answer.AddTail(first, end);
  }
  answer.Store(part);
}

}  // namespace

absl::Status LaunchSlotAnswerFew(const SlotKernelArgs& args, int d, int tile_queries, int num_tiles,
                                 cudaStream_t stream) {
  const dim3 grid(args.state_parts + args.tail_parts, args.view.heads_kv, num_tiles);
  return ForHeadDim(d, [&]<int kDim>() {
    constexpr int kMiddle = kDim == 128 ? 12 : 16;
    const auto kernel = tile_queries == 8                        ? AnswerFew<kDim, 8>
                        : kDim == 128 && tile_queries == kMiddle ? AnswerFew<kDim, kMiddle>
                                                                 : AnswerFew<kDim, 16>;
    const int bytes = tile_queries == 8                        ? sizeof(FewShared<kDim, 8>)
                      : kDim == 128 && tile_queries == kMiddle ? sizeof(FewShared<kDim, kMiddle>)
                                                               : sizeof(FewShared<kDim, 16>);
    if (absl::Status status = AllowShared(kernel, bytes); !status.ok()) return status;
    if (absl::Status status = PreferShared(kernel); !status.ok()) return status;
    return LaunchEarly("AnswerFew", kernel, grid, kThreads, bytes, stream, args);
  });
}

}  // namespace statehouse::kernels
