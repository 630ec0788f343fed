// The sums of one new row of a sequence: φ(q)ᵀ S, φ(q)ᵀ z, and the weights of the tail times its values, for the up to
// 16 query heads of a key/value head; bound by reading state and tail once.
//
// The head's work is a list of stages of 8 rows: of S, then per 8 keys of the tail one of keys and one of values.
// Blocks take stretches of the list of about the same size (RowWork). A warp takes every eighth stage of its block's
// stretch through a ring in shared memory of its own, which asynchronous copies keep full: no barrier of the block, and
// many bytes under way. From there rows are the right operand of tf32 products; the left one is φ(q) or the weights.
// Row 2t (2t + 1) of a stage is k = t (t + 4) of a product, with t = lane mod 4, and column n of product (panel, e) is
// column 4n + e of the panel, so that a lane's numbers lie side by side; units of 16 bytes are permuted by the row so
// that the lanes of one access meet in no bank.
//
// The new row's key, value and gate come from the step's arrays; the warp that answers them writes them to the slot.
#pragma once

#include "kernels/cuda/mma.cuh"
#include "kernels/power_retention/cuda/slot_args.cuh"
#include "kernels/power_retention/cuda/slot_row_heads.cuh"
#include "kernels/power_retention/cuda/slot_row_work.cuh"

namespace statehouse::kernels {

// The tf32 number nearest to x, in a product, which ignores the bits behind.
__device__ __forceinline__ uint32_t NearestTf32(float x) { return __float_as_uint(x) + 0x1000u; }

template <int d>
class RowAnswer {
 public:
  using Shape = RowShape<d>;

  // REQUIRES: place and work are in `shared`.
  __device__ RowAnswer(const SlotKernelArgs& args, RowShared<d>& shared)
      : args_(args), place_(shared.place), shared_(shared), ring_(shared.ring[Warp()][0]) {
    const RowWork work = shared.work;
    num_stages_ = (work.num_stages - Warp() + kRowWarps - 1) / kRowWarps;
    // Groups go on where the stages ended, so that all warps have about the same.
    const int own = (Warp() - work.num_stages % kRowWarps + kRowWarps) % kRowWarps;
    first_group_ = work.first_group + own;
    num_groups_ = (work.num_groups - own + kRowWarps - 1) / kRowWarps;
    appends_ = work.HoldsLast() && (work.num_groups - 1) % kRowWarps == own;
  }

  // Asks for the first stages and reads what no kernel of this step changes.
  __device__ void Begin() {
#pragma unroll 1
    for (int i = 0; i < Shape::kRing; ++i) Ask(i, i);
    // Used after the wait only, so that nothing is waited for here.
    const SlotView& view = args_.view;
    if (place_.first_chunk + Lane() < place_.chunk) {
      const float* block =
          Head().Block(place_.first_chunk + Lane(), place_.holds_state) + view.block_l + view.chunk - 1;
      closed_ = {block[0], block[view.padded_chunk]};
    }
    if (place_.chunk_row > 0) {
      const float* block = OwnBlock() + view.block_l + place_.chunk_row - 1;
      before_ = {block[0], block[view.padded_chunk]};
    }
  }

  // Reads the step's rows: queries into shared memory, this row's key, value and gate.
  __device__ void LoadRow() {
    const HeadReader<d> reader(args_, place_);
    RawHead<d> raw[2], raw_key, raw_value;
    HeadElements<d> q[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int m = half * kRowWarps + Warp();
      if (m < place_.num_queries) raw[half] = reader.ReadQuery(m);
    }
    if (appends_) {
      raw_key = reader.ReadKey();
      raw_value = reader.ReadValue();
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (half * kRowWarps + Warp() < place_.num_queries) q[half] = reader.Query(raw[half]);
    }
    const RoundedGateSum gate(before_.Value() + reader.Gate());
    if (Warp() == 0) {
      // As ChunkGates() adds them.
      double closed = closed_.Value();
      for (int64_t n = place_.first_chunk + 32 + Lane(); n < place_.chunk; n += 32) {
        closed += GateSum(args_.view, Head().Block(n, place_.holds_state), args_.view.chunk - 1);
      }
#pragma unroll
      for (int step = 16; step > 0; step /= 2) closed += __shfl_xor_sync(0xffffffffu, closed, step);
      if (Lane() == 0) {
        shared_.closed = closed;
        shared_.gate = gate.Value();
      }
    }
    if (appends_) Append(reader.Key(raw_key), reader.Value(raw_value), gate);
#pragma unroll
    for (int i = 0; i < d / 64; ++i) {
      const int l = i * 32 + Lane();
      shared_.queries[l][Warp()] = make_float2(q[0].low[i], q[1].low[i]);
      shared_.queries[l + d / 2][Warp()] = make_float2(q[0].high[i], q[1].high[i]);
    }
    __syncthreads();  // queries are there
  }

  __device__ void AddState() {
    // Here and not earlier: until now the registers were needed.
#pragma unroll
    for (int n = 0; n < d / 8; ++n) y_[n][0] = y_[n][1] = y_[n][2] = y_[n][3] = 0;
    denominators_[0] = denominators_[1] = 0;
#pragma unroll 1
    for (int i = 0; i < num_stages_; ++i) {
      const char* stage = Arrived();
      uint32_t a[4];
      FormMonomials(stage, a);
      Multiply(a, stage);
      Refill(i);
    }
    if (num_stages_ <= 0) return;
    const float factor =
        expf(static_cast<float>(shared_.gate + shared_.closed)) * Power(args_.view.scale, args_.view.degree);
#pragma unroll
    for (int n = 0; n < d / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) y_[n][i] *= factor;
    }
    denominators_[0] *= factor, denominators_[1] *= factor;
  }

  __device__ void AddTail() {
    const int before = max(num_stages_, 0);
#pragma unroll 1
    for (int i = 0; i < num_groups_; ++i) {
      const int group = first_group_ + i * kRowWarps;
      const bool is_last = appends_ && i + 1 == num_groups_;
      char* stage = Arrived();
      if (is_last) PutKey(stage);
      uint32_t a[4];
      FormWeights(group, stage, a);
      Refill(before + 2 * i);
      stage = Arrived();
      if (is_last) PutValue(stage);
      Multiply(a, stage);
      Refill(before + 2 * i + 1);
    }
    CopyWait<0>();
  }

  // Leaves the warps' sums in shared memory.
  __device__ void LeaveSums() {
    auto& sums = shared_.sums;
    const int g = Lane() / 4, t = Lane() % 4;
    __syncthreads();  // all stages are used up
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float* const row = sums.y[Warp()][half * 8 + g];
#pragma unroll
      for (int panel = 0; panel < Shape::kPanels; ++panel) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int n = panel * 4, at = half * 2 + i;
          *reinterpret_cast<float4*>(row + panel * 32 + t * 8 + i * 4) =
              make_float4(y_[n][at], y_[n + 1][at], y_[n + 2][at], y_[n + 3][at]);
        }
      }
      float den = denominators_[half];
      den += __shfl_xor_sync(0xffffffffu, den, 1);
      den += __shfl_xor_sync(0xffffffffu, den, 2);
      if (t == 0) sums.denominators[Warp()][half * 8 + g] = den;
    }
    __syncthreads();  // sums are there
  }

 private:
  static __device__ __forceinline__ int Warp() { return threadIdx.x / 32; }
  static __device__ __forceinline__ int Lane() { return threadIdx.x % 32; }
  __device__ SlotHead Head() const { return place_.Head(args_.view); }
  __device__ float* OwnBlock() const { return Head().Block(place_.chunk, place_.holds_state); }

  // Where 16-byte unit `unit` of a panel's row lies.
  static __device__ __forceinline__ int Unit(int row, int unit) { return row * 128 + (unit ^ (row & 6)) * 16; }

  // The next stage of the warp's list, when it is there for all lanes.
  __device__ __forceinline__ char* Arrived() {
    CopyWait<Shape::kRing - 1>();
    __syncwarp();
    return ring_ + place_in_ring_ * Shape::kStageBytes;
  }
  // Stage i of the list is used up: asks for a later one in its place.
  __device__ __forceinline__ void Refill(int i) {
    __syncwarp();
    Ask(i + Shape::kRing, place_in_ring_);
    place_in_ring_ = place_in_ring_ + 1 == Shape::kRing ? 0 : place_in_ring_ + 1;
  }

  // Asks for stage i of the warp's list, if there is one. A group of copies in any case, so that they can be counted.
  __device__ __forceinline__ void Ask(int i, int place) {
    const uint32_t to = SharedAddress(ring_ + place * Shape::kStageBytes);
    const int at = i - max(num_stages_, 0);
    if (at < 0) {
      AskForState(shared_.work.first_stage + Warp() + i * kRowWarps, to);
    } else if (at / 2 < num_groups_) {
      AskForTail(args_, place_, first_group_ + at / 2 * kRowWarps, at % 2 != 0, to);
    }
    CopyCommit();
  }

  __device__ __forceinline__ void AskForState(int stage, uint32_t to) {
    const SlotHead head = Head();
    const int64_t first = int64_t{stage} * kStageRows, panel_floats = int64_t{args_.view.expanded} * 32;
    const float* from = head.State() + first * 32 + Lane() * 4;
    const int row = Lane() / 8, unit = Lane() % 8;
#pragma unroll
    for (int panel = 0; panel < Shape::kPanels; ++panel) {
      CopyAsync16(to + panel * Shape::kPanelBytes + Unit(row, unit), from + panel * panel_floats);
      CopyAsync16(to + panel * Shape::kPanelBytes + Unit(row + 4, unit), from + panel * panel_floats + 128);
    }
    const void* behind = args_.pairs + first;
    if (Lane() < 2) behind = head.Normalizer() + first + Lane() * 4;
    if (Lane() < 3) CopyAsync16(to + Shape::kMatrixBytes + Lane() * 16, behind);
  }

  // The group's chunk and its first key there.
  static __device__ __forceinline__ int64_t ChunkOf(const SlotKernelArgs& args, const TilePlace& place, int group,
                                                    int* first_key) {
    const int per_chunk = RowWork::GroupsPerChunk(args.view), chunk = group / per_chunk;
    *first_key = (group - chunk * per_chunk) * kStageRows;
    return place.first_chunk + chunk;
  }

  // A call, not inlined: its addresses would take the registers of the sums.
  static __device__ __noinline__ void AskForTail(const SlotKernelArgs& args, const TilePlace& place, int group,
                                                 bool values, uint32_t to) {
    const SlotView& view = args.view;
    int c0;
    const int64_t chunk = ChunkOf(args, place, group, &c0);
    const float* block = place.Head(view).Block(chunk, place.holds_state);
    if (values) {
      // Rows that are not there yet must be zeros: their weights are.
      const int row = Lane() / 8, unit = Lane() % 8, end = chunk == place.chunk ? place.chunk_row : view.chunk;
      const float* from = block + view.block_v + (c0 + row) * 32 + unit * 4;
#pragma unroll
      for (int panel = 0; panel < Shape::kPanels; ++panel) {
        const uint32_t panel_to = to + panel * Shape::kPanelBytes;
        CopyAsync16(panel_to + Unit(row, unit), from + panel * view.chunk * 32, c0 + row < end);
        CopyAsync16(panel_to + Unit(row + 4, unit), from + panel * view.chunk * 32 + 128, c0 + row + 4 < end);
      }
      return;
    }
    const int width = KeyWidth(view, c0);
    const float* from = block + KeyOffset<d>(c0) + Lane() / 2 * width + Lane() % 2 * 4;
#pragma unroll
    for (int i = 0; i < d / 16; ++i) CopyAsync16(to + (i * 32 + Lane()) * 16, from + i * 16 * width);
    if (Lane() < 4) {
      const float* gates = block + view.block_l + Lane() / 2 * view.padded_chunk + c0 + Lane() % 2 * 4;
      CopyAsync16(to + Shape::kMatrixBytes + Lane() * 16, gates);
    }
  }

  // φ(q) at the stage's 8 monomials, and what it adds to the denominators.
  __device__ __forceinline__ void FormMonomials(const char* stage, uint32_t (&a)[4]) {
    const int g = Lane() / 4, t = Lane() % 4;
    const float2 z = *reinterpret_cast<const float2*>(stage + Shape::kMatrixBytes + t * 8);
    const uint32_t pairs = *reinterpret_cast<const uint32_t*>(stage + Shape::kMatrixBytes + 32 + t * 4);
    const float2 i0 = shared_.queries[pairs & 255][g], j0 = shared_.queries[pairs >> 8 & 255][g];
    const float2 i1 = shared_.queries[pairs >> 16 & 255][g], j1 = shared_.queries[pairs >> 24][g];
    const float phi[4] = {i0.x * j0.x, i0.y * j0.y, i1.x * j1.x, i1.y * j1.y};
    denominators_[0] = fmaf(phi[2], z.y, fmaf(phi[0], z.x, denominators_[0]));
    denominators_[1] = fmaf(phi[3], z.y, fmaf(phi[1], z.x, denominators_[1]));
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = NearestTf32(phi[i]);
  }

  // Weights of a group's keys, and their sum.
  __device__ __forceinline__ void FormWeights(int group, const char* stage, uint32_t (&a)[4]) {
    const SlotView& view = args_.view;
    const int g = Lane() / 4, t = Lane() % 4;
    const float* keys = reinterpret_cast<const float*>(stage);
    float scores[2][4] = {};  // two chains
#pragma unroll 1
    for (int first = 0; first < d; first += 32) {
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        const int l = first + step * 8;
        const float2 low = shared_.queries[l + t][g], high = shared_.queries[l + t + 4][g];
        const uint32_t q[4] = {NearestTf32(low.x), NearestTf32(low.y), NearestTf32(high.x), NearestTf32(high.y)};
        MmaTf32(scores[step % 2], q, NearestTf32(keys[(l + t) * 8 + g]), NearestTf32(keys[(l + t + 4) * 8 + g]));
      }
    }
    int c0;
    const int64_t chunk = ChunkOf(args_, place_, group, &c0);
    const bool is_own = chunk == place_.chunk;
    const double until = shared_.gate + (is_own ? 0.0 : GatesFrom(chunk));
    const float* gates = reinterpret_cast<const float*>(stage + Shape::kMatrixBytes);
    float weights[4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int c = c0 + 2 * t + i;
      const double since = until - (static_cast<double>(gates[2 * t + i]) + static_cast<double>(gates[8 + 2 * t + i]));
      const bool is_new = is_own && c == place_.chunk_row;
      const bool seen = is_own ? c <= place_.chunk_row : c < view.chunk;
      const float decay = is_new ? 1.0f : expf(static_cast<float>(since));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float score = scores[0][half * 2 + i] + scores[1][half * 2 + i];
        weights[i * 2 + half] = seen ? Power(score * view.scale, view.degree) * decay : 0.0f;
      }
    }
    denominators_[0] += weights[0] + weights[2];
    denominators_[1] += weights[1] + weights[3];
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = NearestTf32(weights[i]);
  }

  // Sum of the log gates of chunks `chunk` … up to the row's own.
  __device__ __forceinline__ double GatesFrom(int64_t chunk) {
    if (chunk == place_.first_chunk) return shared_.closed;
    if (chunk != gates_chunk_) {
      gates_chunk_ = chunk;
      gates_from_ = ChunkGates(Head(), place_.holds_state, chunk - 1, place_.chunk);
    }
    return gates_from_;
  }

  // Sums += A B, A's columns and B's rows being the stage's.
  __device__ __forceinline__ void Multiply(const uint32_t (&a)[4], const char* stage) {
    const int g = Lane() / 4, t = Lane() % 4;
    const char* rows = stage + Unit(2 * t, g);
#pragma unroll
    for (int panel = 0; panel < Shape::kPanels; ++panel) {
      const float4 low = *reinterpret_cast<const float4*>(rows + panel * Shape::kPanelBytes);
      const float4 high = *reinterpret_cast<const float4*>(rows + panel * Shape::kPanelBytes + 128);
      MmaTf32(y_[panel * 4], a, NearestTf32(low.x), NearestTf32(high.x));
      MmaTf32(y_[panel * 4 + 1], a, NearestTf32(low.y), NearestTf32(high.y));
      MmaTf32(y_[panel * 4 + 2], a, NearestTf32(low.z), NearestTf32(high.z));
      MmaTf32(y_[panel * 4 + 3], a, NearestTf32(low.w), NearestTf32(high.w));
    }
  }

  // The new row into the slot.
  __device__ void Append(const HeadElements<d>& new_key, const HeadElements<d>& new_value, const RoundedGateSum& gate) {
    const SlotView& view = args_.view;
    const int c = place_.chunk_row, width = KeyWidth(view, c);
    float* const block = OwnBlock();
    float* const key = block + KeyOffset<d>(c);
    float* const value = block + view.block_v + c * 32 + Lane();
#pragma unroll
    for (int i = 0; i < d / 64; ++i) {
      const int l = i * 32 + Lane();
      key[l * width] = shared_.key[l] = new_key.low[i];
      key[(l + d / 2) * width] = shared_.key[l + d / 2] = new_key.high[i];
      value[i * view.chunk * 32] = shared_.value[l] = new_value.low[i];
      value[(i + d / 64) * view.chunk * 32] = shared_.value[l + d / 2] = new_value.high[i];
    }
    if (Lane() == 0) gate.Store(view, block, c);
  }

  // The new row into the stages of its group.
  __device__ __forceinline__ void PutKey(char* stage) const {
    float* const keys = reinterpret_cast<float*>(stage) + place_.chunk_row % kStageRows;
#pragma unroll
    for (int i = 0; i < d / 32; ++i) keys[(i * 32 + Lane()) * 8] = shared_.key[i * 32 + Lane()];
    __syncwarp();
  }
  __device__ __forceinline__ void PutValue(char* stage) const {
    char* const row = stage + Unit(place_.chunk_row % kStageRows, Lane() / 4) + Lane() % 4 * 4;
#pragma unroll
    for (int panel = 0; panel < Shape::kPanels; ++panel) {
      *reinterpret_cast<float*>(row + panel * Shape::kPanelBytes) = shared_.value[panel * 32 + Lane()];
    }
    __syncwarp();
  }

  const SlotKernelArgs& args_;
  const TilePlace& place_;
  RowShared<d>& shared_;
  char* const ring_;  // the warp's
  int num_stages_, first_group_, num_groups_;
  bool appends_;
  int place_in_ring_ = 0;
  RoundedGateSum closed_;  // this lane's share of the log gates of the tail's whole chunks
  RoundedGateSum before_;  // log gates of the row's own chunk before it
  int64_t gates_chunk_ = -1;
  double gates_from_ = 0;
  float y_[d / 8][4];
  float denominators_[2];  // heads g and g + 8, of this lane's rows only
};

}  // namespace statehouse::kernels
