// One part of the sums of one tile of queries and one head:
//   a stretch of the state's monomials:  Σ_m φ_m(q) S[m], Σ_m φ_m(q) z[m]      (scaled when the parts are added)
//   a stretch of the tail's rows:        Σ_j w_j v_j, Σ_j w_j,  w_j = (σ q·k_j)^p e^{L[t] - L[j]}
// Every element is one float32 chain over monomials or rows, in order, whatever the tile's width.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/slot_tile.cuh"

namespace statehouse::kernels {
namespace {

constexpr int kDenLanes = 4;  // chains of a denominator; added in order at the end

template <int d, int kQueries>
struct AnswerShared {
  float queries[d][kQueries];
  float coef[kTileDepth][kQueries];
  float rows[kTileDepth][d];
  double gates[kQueries];  // L[t], within the queries' chunk
  float lanes[kDenLanes][kQueries];
};

template <int d, int kQueries>
class TileAnswer {
 public:
  static constexpr int kThreads = kQueries * kDenLanes;
  using Product = TileProduct<d>;

  __device__ TileAnswer(const SlotKernelArgs& args, const TilePlace& place, AnswerShared<d, kQueries>& shared)
      : args_(args),
        place_(place),
        shared_(shared),
        query_(threadIdx.x % kQueries),
        den_lane_(threadIdx.x / kQueries) {}

  __device__ void LoadQueries() {
    for (int at = threadIdx.x; at < kQueries * d; at += kThreads) {
      const int m = at / d, l = at % d;
      float value = 0;
      if (m < place_.num_queries) value = args_.q[QueryOffset(m) + l];
      shared_.queries[l][m] = value;
    }
    __syncthreads();  // queries are there
  }

  __device__ void AddState(int first, int end) {
    const SlotHead head = place_.Head(args_.view);
    const PanelMatrix<d> state = {head.State(), args_.view.expanded};
    const float* z = head.Normalizer();
    PanelTile<d, kThreads> tile;
    tile.Read(state, first, min(kTileDepth, end - first));
    for (int m0 = first; m0 < end; m0 += kTileDepth) {
      const int count = min(kTileDepth, end - m0);
      __syncthreads();  // the tile before is used up
      tile.Store(&shared_.rows[0][0]);
      for (int m = den_lane_; m < kTileDepth; m += kDenLanes) {
        float expanded = 0;
        if (m < count) {
          const uchar2 pair = args_.pairs[m0 + m];
          expanded = shared_.queries[pair.x][query_] * shared_.queries[pair.y][query_];
          den_ = fmaf(expanded, z[m0 + m], den_);
        }
        shared_.coef[m][query_] = expanded;
      }
      if (m0 + kTileDepth < end) tile.Read(state, m0 + kTileDepth, min(kTileDepth, end - m0 - kTileDepth));
      __syncthreads();  // coefficients and rows are there
      Product::template Add<kQueries>(&shared_.coef[0][0], &shared_.rows[0][0], kTileDepth, sum_);
    }
  }

  // Rows [first, end) of the tail, absolute positions.
  __device__ void AddTail(int64_t first, int64_t end) {
    const SlotView& view = args_.view;
    const SlotHead head = place_.Head(view);
    const float* own = head.Block(place_.chunk, place_.holds_state);
    if (threadIdx.x < kQueries) {
      const int row = place_.RowOf(view, min(static_cast<int>(threadIdx.x), place_.num_queries - 1));
      shared_.gates[threadIdx.x] = GateSum(view, own, place_.chunk_row + row);
    }
    for (int64_t at = first; at < end;) {
      const int64_t chunk = at / view.chunk;
      const int begin = static_cast<int>(at - chunk * view.chunk);
      const int stop = static_cast<int>(min(end - chunk * view.chunk, static_cast<int64_t>(view.chunk)));
      const float* block = head.Block(chunk, place_.holds_state);
      // From the end of this chunk to the start of the queries'.
      double between = 0;
      if (chunk < place_.chunk) {
        between = ChunkGates(head, place_.holds_state, chunk, place_.chunk) + GateSum(view, block, view.chunk - 1);
      }
      for (int c0 = begin; c0 < stop; c0 += kTileDepth) AddKeys(block, chunk, c0, min(kTileDepth, stop - c0), between);
      at = chunk * view.chunk + stop;
    }
  }

  __device__ void Store(int part) {
    const int parts = args_.state_parts + args_.tail_parts;
    const int64_t first = ((int64_t{place_.tile} * args_.view.heads_kv + place_.head) * parts + part) * kQueries;
    shared_.lanes[den_lane_][query_] = den_;
    const int row = threadIdx.x / 16 * 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < Product::kColumns; ++j) {
        args_.numerators[(first + row + i) * d + Product::ColumnOf(j)] = sum_[i][j];
      }
    }
    __syncthreads();  // lanes are there
    if (den_lane_ == 0) {
      args_.denominators[first + query_] =
          ((shared_.lanes[0][query_] + shared_.lanes[1][query_]) + shared_.lanes[2][query_]) + shared_.lanes[3][query_];
    }
  }

 private:
  __device__ int64_t QueryOffset(int m) const {
    const int at = place_.first_query + m, group = args_.view.group;
    return (place_.segment.first_row + at / group) * args_.row_stride + (place_.head * group + at % group) * d;
  }

  // Keys c0 … of one chunk; c0 is a multiple of 32.
  __device__ void AddKeys(const float* block, int64_t chunk, int c0, int count, double between) {
    const SlotView& view = args_.view;
    PanelTile<d, kThreads> values;
    values.Read({block + view.block_v, view.chunk}, c0, count);
    const int lane = threadIdx.x % 32, width = KeyWidth(view, c0), first_query = threadIdx.x / 32 * 8;
    float score[8] = {};
    if (lane < count) {
      const float* key = block + int64_t{c0} * d + lane;
#pragma unroll 4
      for (int l = 0; l < d; ++l) {
        const float k = key[l * width];
        const float4 low = *reinterpret_cast<const float4*>(&shared_.queries[l][first_query]);
        const float4 high = *reinterpret_cast<const float4*>(&shared_.queries[l][first_query + 4]);
        score[0] = fmaf(low.x, k, score[0]), score[1] = fmaf(low.y, k, score[1]);
        score[2] = fmaf(low.z, k, score[2]), score[3] = fmaf(low.w, k, score[3]);
        score[4] = fmaf(high.x, k, score[4]), score[5] = fmaf(high.y, k, score[5]);
        score[6] = fmaf(high.z, k, score[6]), score[7] = fmaf(high.w, k, score[7]);
      }
    }
    __syncthreads();  // the keys before are used up; gates are there
    values.Store(&shared_.rows[0][0]);
    const double since_key = lane < count ? between - GateSum(view, block, c0 + lane) : 0.0;
    float weights[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int m = first_query + i;
      const int row = place_.RowOf(view, min(m, place_.num_queries - 1));
      const bool seen = chunk < place_.chunk || c0 + lane <= place_.chunk_row + row;
      weights[i] = 0;
      if (lane < count && seen) {
        weights[i] = Power(score[i] * view.scale, view.degree) * expf(static_cast<float>(shared_.gates[m] + since_key));
      }
    }
    *reinterpret_cast<float4*>(&shared_.coef[lane][first_query]) =
        make_float4(weights[0], weights[1], weights[2], weights[3]);
    *reinterpret_cast<float4*>(&shared_.coef[lane][first_query + 4]) =
        make_float4(weights[4], weights[5], weights[6], weights[7]);
    __syncthreads();  // weights and rows are there
    for (int k = den_lane_; k < kTileDepth; k += kDenLanes) den_ += shared_.coef[k][query_];
    Product::template Add<kQueries>(&shared_.coef[0][0], &shared_.rows[0][0], kTileDepth, sum_);
  }

  const SlotKernelArgs& args_;
  const TilePlace& place_;
  AnswerShared<d, kQueries>& shared_;
  const int query_, den_lane_;  // whose denominator this thread helps to sum
  float sum_[4][Product::kColumns] = {};
  float den_ = 0;
};

// Grid (part, head, tile).
template <int d, int kQueries>
__global__ void __launch_bounds__(kQueries* kDenLanes) AnswerTiles(SlotKernelArgs args) {
  extern __shared__ float4 memory[];
  auto& shared = *reinterpret_cast<AnswerShared<d, kQueries>*>(memory);
  const TilePlace place(args, blockIdx.z, blockIdx.y, kQueries);
  const int part = blockIdx.x, tail_part = part - args.state_parts;
  TileAnswer<d, kQueries> answer(args, place, shared);
  if (tail_part < 0) {
    if (place.first_chunk == 0) return;  // nothing is folded
    answer.LoadQueries();
    answer.AddState(PartBegin(args.view.expanded, args.state_parts, part),
                    PartBegin(args.view.expanded, args.state_parts, part + 1));
  } else {
    if (tail_part >= place.NumTailParts(args)) return;
    answer.LoadQueries();
    const int64_t begin = (place.FirstTailPart(args) + tail_part) * args.part_rows;
    answer.AddTail(max(begin, place.first_chunk * args.view.chunk),
                   min(begin + args.part_rows, place.LastPosition(args.view) + 1));
  }
  answer.Store(part);
}

template <int d, int kQueries>
absl::Status Launch(const SlotKernelArgs& args, int num_tiles, cudaStream_t stream) {
  constexpr int kShared = sizeof(AnswerShared<d, kQueries>);
  const auto kernel = AnswerTiles<d, kQueries>;
  if (absl::Status status = AllowShared(kernel, kShared); !status.ok()) return status;
  const dim3 grid(args.state_parts + args.tail_parts, args.view.heads_kv, num_tiles);
  kernel<<<grid, kQueries * kDenLanes, kShared, stream>>>(args);
  return LaunchStatus("AnswerTiles");
}

}  // namespace

absl::Status LaunchSlotAnswer(const SlotKernelArgs& args, int d, int tile_queries, int num_tiles, cudaStream_t stream) {
  return ForHeadDim(d, [&]<int kDim>() {
    return tile_queries == 16 ? Launch<kDim, 16>(args, num_tiles, stream) : Launch<kDim, 64>(args, num_tiles, stream);
  });
}

}  // namespace statehouse::kernels
