// Rotary position embedding, half-split ("rotate_half") form: pairs (i, i + d/2).
//
// Angles position · theta^(-2i/d) are formed and range-reduced in double (the frequency in two doubles), with our own
// pow, sin and cos (libm differs by host), so positions up to 2^53 are right; tested at 2^24+1 and 2^31+5. Source: Su
// et al., RoFormer (2021).
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/math/scalar_math.h"
#include "kernels/parallel/thread_pool.h"

namespace statehouse::kernels {

class RopeFrequencies {
 public:
  // REQUIRES: head_dim even and positive, theta > 0 (the caller has checked the config).
  RopeFrequencies(int head_dim, double theta);
  // Writes cos and sin of every pair for one position. cos, sin [head_dim / 2].
  void Angles(int64_t position, float* cos, float* sin) const;
  int head_dim() const { return head_dim_; }
  // Whole turns per position, one per pair: for devices that form their own angles.
  const std::vector<DoubleDouble>& turns() const { return turns_; }

 private:
  int head_dim_;
  std::vector<DoubleDouble> turns_;  // [head_dim / 2], theta^(-2i/d) / 2π: whole turns per position
};

// Rotates in place. x [num_rows, num_heads, head_dim]; cos, sin [num_rows, head_dim / 2].
struct RopeArgs {
  float* x = nullptr;
  const float* cos = nullptr;
  const float* sin = nullptr;
  int64_t num_rows = 0;
  int64_t num_heads = 0;
  int64_t head_dim = 0;
};
void ApplyRope(const RopeArgs& args, ThreadPool& pool);
void ApplyRopeRef(const RopeArgs& args);

}  // namespace statehouse::kernels
