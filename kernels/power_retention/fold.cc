// S <- e^{L_last} S + Σ_j ExpandKey(k_j e^{(L_last - L_j)/p}) v_jᵀ and z likewise, chunk after chunk.
//
// A task's monomials go through all its chunks together, so that their part of S stays in the L2 cache. Keys are
// expanded kDepth at a time, lanes across keys, and multiplied with the panels of V by the shared register tile: each
// element of S is one chain over j. Sums for z run in 16 lanes (key c in lane c mod 16), added in a fixed tree once per
// chunk.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/power_retention/fold.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/math/simd-inl.h"
#include "kernels/math/vector_math-inl.h"
#include "kernels/matmul/tile-inl.h"
#include "kernels/power_retention/expand-inl.h"

#include <algorithm>

#include "kernels/power_retention/tasks.h"

HWY_BEFORE_NAMESPACE();
namespace statehouse::kernels::HWY_NAMESPACE {

HWY_INLINE void Scale(float* x, int64_t size, float factor) {
  const F16 factor16 = Set16(factor);
  for (int64_t i = 0; i < size; i += kGroup) Store16(Mul16(Load16(x + i), factor16), x + i);
}

HWY_INLINE float Exp1(float x) {
  alignas(64) float lane[kGroup];
  Store16(Map16(Set16(x), [](VF v) HWY_ATTR { return Exp(v); }), lane);
  return lane[0];
}

// key[l][j] = k_j[l] e^{(L_last - L_j)/p} for the keys [first, first + count) of a chunk; lanes past `count` are zero.
HWY_INLINE void DecayedKeys(const RetentionLayout& layout, const float* block, int64_t first, int64_t count,
                            float* key) {
  const int64_t d = layout.shape().head_dim;
  const int64_t C = layout.shape().chunk;
  const float* L = layout.BlockL(block);
  const float* L_rest = layout.BlockLRest(block);
  const F16 last = Set16(L[C - 1]);
  const F16 last_rest = Set16(L_rest[C - 1]);
  const F16 share = Set16(1.0f / static_cast<float>(layout.shape().degree));
  for (int64_t lane = 0; lane < count; lane += kGroup) {
    const int64_t c = first + lane;
    const F16 since = Add16(Sub16(last, Load16(L + c)), Sub16(last_rest, Load16(L_rest + c)));
    alignas(64) float decay_lane[kGroup];
    Store16(Map16(Mul16(since, share), [](VF v) HWY_ATTR { return Exp(v); }), decay_lane);
    const F16 decay = LoadFirst16(decay_lane, count - lane);
    const int64_t panel = c / 32 * 32;
    const int64_t width = HWY_MIN(int64_t{32}, layout.padded_chunk() - panel);
    const float* from = layout.BlockK(block) + panel * d + c % 32;
    for (int64_t l = 0; l < d; ++l) {
      // Lanes past `count` may hold anything: they are not read.
      const F16 k = LoadFirst16(from + l * width, count - lane);
      Store16(Mul16(k, decay), key + l * kDepthStride + lane);
    }
  }
}

// Adds the keys [c0, c0 + keys) of a chunk, in space.key, to the monomials [first, first + count), count <= kTile.
HWY_INLINE void AddKeys(const FoldTask& task, const float* block, int64_t c0, int64_t keys, int64_t first,
                        int64_t count, float* den_lanes, const Workspace& space) {
  const RetentionLayout& layout = *task.layout;
  const int64_t C = layout.shape().chunk;
  const int64_t D = layout.expanded();
  const int groups = static_cast<int>((keys + kGroup - 1) / kGroup);
  Monomial monomial = Monomial::OfRank(first, layout.shape().head_dim, layout.shape().degree);
  ExpandKey(monomial, count, space.key, kDepthStride, groups, space.prefix, space.expanded, kDepthStride);
  for (int64_t m = 0; m < count; ++m) {
    F16 sum = Load16(den_lanes + m * kGroup);
    for (int group = 0; group < groups; ++group) {
      sum = Add16(sum, Load16(space.expanded + m * kDepthStride + group * kGroup));
    }
    Store16(sum, den_lanes + m * kGroup);
  }
  for (int64_t panel = 0; panel < layout.padded_dim(); panel += 32) {
    const int64_t width = HWY_MIN(int64_t{32}, layout.padded_dim() - panel);
    FloatPanelProduct<kDepthStride>(width, count, space.expanded, 1, layout.BlockV(block) + panel * C + c0 * width,
                                    keys, task.state + panel * D + first * width, width);
  }
}

HWY_INLINE void FoldChunk(const FoldTask& task, const float* block, const Workspace& space) {
  const RetentionLayout& layout = *task.layout;
  const int64_t C = layout.shape().chunk;
  const float decay = Exp1(static_cast<float>(GateSum(layout, block, C - 1)));
  for (int64_t panel = 0; panel < layout.padded_dim(); panel += 32) {
    const int64_t width = HWY_MIN(int64_t{32}, layout.padded_dim() - panel);
    Scale(task.state + panel * layout.expanded() + task.first * width, task.count * width, decay);
  }
  std::memset(space.den_lanes, 0, task.count * kGroup * sizeof(float));
  for (int64_t c0 = 0; c0 < C; c0 += kDepth) {
    const int64_t keys = HWY_MIN(int64_t{kDepth}, C - c0);
    DecayedKeys(layout, block, c0, keys, space.key);
    for (int64_t done = 0; done < task.count; done += kTile) {
      AddKeys(task, block, c0, keys, task.first + done, HWY_MIN(int64_t{kTile}, task.count - done),
              space.den_lanes + done * kGroup, space);
    }
  }
  for (int64_t m = 0; m < task.count; ++m) {
    float& z = task.normalizer[task.first + m];
    z = z * decay + TreeSum16(Load16(space.den_lanes + m * kGroup));
  }
}

void RunFold(const FoldTask& task, const Workspace& space) {
  for (int64_t i = 0; i < task.num_blocks; ++i) FoldChunk(task, task.blocks + i * task.layout->block_floats(), space);
}

}  // namespace statehouse::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace statehouse::kernels {
HWY_EXPORT(RunFold);
FoldFn ChooseFold() { return &HWY_DYNAMIC_DISPATCH(RunFold); }
}  // namespace statehouse::kernels
#endif  // HWY_ONCE
