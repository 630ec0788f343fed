// y = (σ^p e^{L[t]} ExpandQuery(q)·S + Σ_j w_j v_j) / (the same with z and 1), w_j = (σ q·k_j)^p e^{L[t]-L[j]}.
//
// A tile of queries (rows × the query heads that share a key/value head) reads the state once. The expansion is formed
// a block of monomials at a time, lanes across queries, and multiplied with the panels of S by the shared register
// tile: each numerator is one chain over D, scaled, then continued over the tail's keys in order. Scores have lanes
// across keys; the tail's denominator runs in 16 lanes (key c in lane c mod 16), added in a fixed tree at the end. Keys
// past a query's position count as exact zeros; keys past the tile's last position are never read.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/power_retention/query.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/math/simd-inl.h"
#include "kernels/math/vector_math-inl.h"
#include "kernels/matmul/tile-inl.h"
#include "kernels/power_retention/expand-inl.h"

#include <algorithm>
#include <cfloat>

#include "kernels/power_retention/tasks.h"

HWY_BEFORE_NAMESPACE();
namespace statehouse::kernels::HWY_NAMESPACE {

class QueryTile {
 public:
  QueryTile(const QueryTask& task, const Workspace& space)
      : task_(task),
        space_(space),
        layout_(*task.layout),
        header_(layout_.ReadHeader(task.rows->memory, task.head)),
        d_(layout_.shape().head_dim),
        C_(layout_.shape().chunk),
        group_(layout_.group()),
        groups16_(static_cast<int>((task.num_queries + kGroup - 1) / kGroup)),
        chunk_(task.position / C_),
        first_chunk_(HoldsState(layout_, header_) ? header_.folded_chunks : 0) {}

  void Run() {
    LoadQueries();
    SumGates();
    std::memset(space_.sums, 0, task_.num_panels * kTile * 32 * sizeof(float));
    std::memset(space_.den_lanes, 0, task_.num_queries * kGroup * sizeof(float));
    std::memset(space_.state_den, 0, groups16_ * kGroup * sizeof(float));
    if (first_chunk_ > 0) AddState();
    for (int64_t chunk = first_chunk_; chunk <= chunk_; ++chunk) AddChunk(chunk);
    StoreOutputs();
  }

 private:
  // Query `m` of the tile: its row within the call, and its address there.
  int64_t RowOf(int64_t m) const { return (task_.first_query + m) / group_; }
  int64_t Address(int64_t m) const {
    const int64_t query_head = task_.head * group_ + (task_.first_query + m) % group_;
    return ((task_.first_row + RowOf(m)) * layout_.shape().heads_q + query_head) * d_;
  }
  int64_t PanelColumn(int64_t panel) const { return (task_.first_panel + panel) * 32; }
  int64_t PanelWidth(int64_t panel) const { return HWY_MIN(int64_t{32}, layout_.padded_dim() - PanelColumn(panel)); }
  float* Sums(int64_t panel) const { return space_.sums + panel * kTile * 32; }
  float* Block(int64_t chunk) const { return ChunkBlock(layout_, header_, task_.rows->memory, task_.head, chunk); }

  void LoadQueries() {
    for (int64_t m = 0; m < groups16_ * kGroup; ++m) {
      if (m < task_.num_queries) {
        const float* q = task_.rows->q + Address(m);
        for (int64_t i = 0; i < d_; ++i) space_.query[i * kTile + m] = q[i];
      } else {
        for (int64_t i = 0; i < d_; ++i) space_.query[i * kTile + m] = 0.0f;
      }
    }
  }

  // log_decay[n - first_chunk] = the log gates of the whole chunks after n and before this one, added backwards.
  void SumGates() {
    double sum = 0;
    for (int64_t n = chunk_ - 1; n >= first_chunk_; --n) {
      space_.log_decay[n - first_chunk_] = sum;
      sum += GateSum(layout_, Block(n), C_ - 1);
    }
    state_log_decay_ = sum;
  }

  double GatesInChunk(int64_t row) const { return GateSum(layout_, Block(chunk_), task_.position % C_ + row); }

  void AddState() {
    const int64_t D = layout_.expanded();
    const float* S = layout_.State(task_.rows->memory, task_.head);
    const float* z = layout_.Normalizer(task_.rows->memory, task_.head);
    const int64_t lanes = groups16_ * kGroup;
    Monomial monomial = Monomial::OfRank(0, static_cast<int>(d_), layout_.shape().degree);
    for (int64_t m0 = 0; m0 < D; m0 += kDepth) {
      const int64_t count = HWY_MIN(int64_t{kDepth}, D - m0);
      ExpandQuery(monomial, count, space_.query, kTile, groups16_, space_.prefix, space_.expanded, lanes);
      AddStateDenominator(z + m0, count);
      for (int64_t panel = 0; panel < task_.num_panels; ++panel) {
        const int64_t width = PanelWidth(panel);
        const float* block = S + PanelColumn(panel) * D + m0 * width;
        // Read next: the same monomials of the next panel, or the next ones of the first.
        const float* next = panel + 1 < task_.num_panels ? S + PanelColumn(panel + 1) * D + m0 * PanelWidth(panel + 1)
                                                         : S + PanelColumn(0) * D + (m0 + count) * PanelWidth(0);
        FloatPanelProduct<1>(width, task_.num_queries, space_.expanded, lanes, block, count, Sums(panel), 32,
                             {next, count * width * int64_t{sizeof(float)}});
      }
    }
    ScaleStateSums();
  }

  void AddStateDenominator(const float* z, int64_t count) {
    const int64_t lanes = groups16_ * kGroup;
    for (int group = 0; group < groups16_; ++group) {
      F16 sum = Load16(space_.state_den + group * kGroup);
      const float* expanded = space_.expanded + group * kGroup;
      for (int64_t i = 0; i < count; ++i) sum = MulAdd16(Load16(expanded + i * lanes), Set16(z[i]), sum);
      Store16(sum, space_.state_den + group * kGroup);
    }
  }

  // Times σ^p e^{L[t]}.
  void ScaleStateSums() {
    const float scale = layout_.shape().scale;
    const float power = layout_.shape().degree == 2 ? scale * scale : (scale * scale) * (scale * scale);
    alignas(64) float factors[kTile];
    for (int64_t m = 0; m < groups16_ * kGroup; ++m) {
      factors[m] = m < task_.num_queries ? static_cast<float>(state_log_decay_ + GatesInChunk(RowOf(m))) : 0.0f;
    }
    for (int64_t m = 0; m < groups16_ * kGroup; m += kGroup) {
      const F16 decay = Map16(Load16(factors + m), [](VF v) HWY_ATTR { return Exp(v); });
      const F16 factor = Mul16(decay, Set16(power));
      Store16(factor, factors + m);
      Store16(Mul16(Load16(space_.state_den + m), factor), space_.state_den + m);
    }
    for (int64_t panel = 0; panel < task_.num_panels; ++panel) {
      for (int64_t m = 0; m < task_.num_queries; ++m) {
        float* sums = Sums(panel) + m * 32;
        const F16 factor = Set16(factors[m]);
        for (int lane = 0; lane < 32; lane += kGroup) Store16(Mul16(Load16(sums + lane), factor), sums + lane);
      }
    }
  }

  void AddChunk(int64_t chunk) {
    const int64_t last_row = RowOf(task_.num_queries - 1);
    const int64_t num_keys = chunk < chunk_ ? C_ : task_.position % C_ + last_row + 1;
    const float* block = Block(chunk);
    for (int64_t c0 = 0; c0 < num_keys; c0 += kDepth) {
      const int64_t keys = HWY_MIN(int64_t{kDepth}, num_keys - c0);
      Score(block, c0, keys);
      Weigh(block, chunk, c0, keys);
      for (int64_t panel = 0; panel < task_.num_panels; ++panel) {
        const int64_t width = PanelWidth(panel);
        FloatPanelProduct<kDepthStride>(width, task_.num_queries, space_.weights, 1,
                                        layout_.BlockV(block) + PanelColumn(panel) * C_ + c0 * width, keys, Sums(panel),
                                        32);
      }
    }
  }

  // weights[m][c - c0] = q_m · k_c, a chain over d.
  void Score(const float* block, int64_t c0, int64_t keys) {
    for (int64_t m = 0; m < task_.num_queries; ++m)
      std::memset(space_.weights + m * kDepthStride, 0, kDepth * sizeof(float));
    for (int64_t c = c0; c < c0 + keys; c += 32) {
      const int64_t width = HWY_MIN(int64_t{32}, layout_.padded_chunk() - c);
      FloatPanelProduct<1>(width, task_.num_queries, space_.query, kTile, layout_.BlockK(block) + c * d_, d_,
                           space_.weights + (c - c0), kDepthStride);
    }
  }

  // Scores to weights, and their sum to the denominator's lanes.
  void Weigh(const float* block, int64_t chunk, int64_t c0, int64_t keys) {
    const F16 scale = Set16(layout_.shape().scale);
    const bool fourth = layout_.shape().degree == 4;
    for (int64_t m = 0; m < task_.num_queries;) {
      const int64_t row = RowOf(m);
      // Keys that this row may see, counted from c0.
      const int64_t visible = chunk < chunk_ ? keys : task_.position % C_ + row + 1 - c0;
      alignas(64) float decay[kDepth];
      Decay(block, chunk, row, c0, keys, decay);
      for (; m < task_.num_queries && RowOf(m) == row; ++m) {
        float* weights = space_.weights + m * kDepthStride;
        F16 den = Load16(space_.den_lanes + m * kGroup);
        for (int64_t lane = 0; lane < keys; lane += kGroup) {
          const F16 score = Mul16(Load16(weights + lane), scale);
          const F16 square = Mul16(score, score);
          const F16 power = fourth ? Mul16(square, square) : square;
          const F16 weight = ZeroFrom(Mul16(power, Load16(decay + lane)), visible - lane);
          den = Add16(den, weight);
          Store16(weight, weights + lane);
        }
        Store16(den, space_.den_lanes + m * kGroup);
      }
    }
  }

  // Lanes from `count` on become 0, whatever they held.
  static HWY_INLINE F16 ZeroFrom(const F16& x, int64_t count) {
    if (count >= kGroup) return x;
    F16 out;
    for (int i = 0; i < kGroupVectors; ++i) {
      const int64_t left = HWY_MAX(int64_t{0}, count - i * kLanes);
      out.v[i] = hn::IfThenElseZero(hn::FirstN(DF(), static_cast<size_t>(HWY_MIN(left, int64_t{kLanes}))), x.v[i]);
    }
    return out;
  }

  // decay[c - c0] = e^{L[t] - L[c]} for the row t; lanes past the chunk hold anything.
  void Decay(const float* block, int64_t chunk, int64_t row, int64_t c0, int64_t keys, float* decay) const {
    double base = GatesInChunk(row);
    if (chunk < chunk_) base += space_.log_decay[chunk - first_chunk_] + GateSum(layout_, block, C_ - 1);
    const float rounded = static_cast<float>(base);
    const F16 base16 = Set16(rounded);
    const F16 rest16 = Set16(static_cast<float>(base - static_cast<double>(rounded)));
    for (int64_t lane = 0; lane < keys; lane += kGroup) {
      const F16 coarse = Sub16(base16, Load16(layout_.BlockL(block) + c0 + lane));
      const F16 since = Add16(coarse, Sub16(rest16, Load16(layout_.BlockLRest(block) + c0 + lane)));
      Store16(Map16(since, [](VF v) HWY_ATTR { return Exp(v); }), decay + lane);
    }
  }

  void StoreOutputs() {
    for (int64_t m = 0; m < task_.num_queries; ++m) {
      const float den = space_.state_den[m] + TreeSum16(Load16(space_.den_lanes + m * kGroup));
      float* y = task_.rows->y + Address(m);
      for (int64_t panel = 0; panel < task_.num_panels; ++panel) {
        const int64_t column = PanelColumn(panel);
        const float* sums = Sums(panel) + m * 32;
        for (int lane = 0; lane < 32; lane += kGroup) {
          const int64_t count = HWY_MIN(d_ - column - lane, int64_t{kGroup});
          if (count <= 0) break;
          StoreFirst16(Quotient(Load16(sums + lane), den), count, y + column + lane);
        }
      }
    }
  }

  // 0 where nothing can be divided by. Adding 0 turns -0 into 0: which of the two it is could depend on masked keys.
  static HWY_INLINE F16 Quotient(const F16& numerator, float den) {
    if (!(den >= FLT_MIN)) return Zero16();
    const VF divisor = hn::Set(DF(), den);
    return Map16(numerator, [divisor](VF v) HWY_ATTR { return hn::Add(hn::Div(v, divisor), hn::Zero(DF())); });
  }

  const QueryTask& task_;
  const Workspace& space_;
  const RetentionLayout& layout_;
  const RetentionHeader header_;
  const int64_t d_;
  const int64_t C_;
  const int64_t group_;
  const int groups16_;
  const int64_t chunk_;        // of the queries
  const int64_t first_chunk_;  // of the tail
  double state_log_decay_ = 0;
};

void RunQuery(const QueryTask& task, const Workspace& space) { QueryTile(task, space).Run(); }

}  // namespace statehouse::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace statehouse::kernels {
HWY_EXPORT(RunQuery);
QueryFn ChooseQuery() { return &HWY_DYNAMIC_DISPATCH(RunQuery); }
}  // namespace statehouse::kernels
#endif  // HWY_ONCE
