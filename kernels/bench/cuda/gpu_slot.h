// One slot of decode with random contents, on the host, and what it answers in double. Private to kernels/bench.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/bench/retention_case.h"
#include "kernels/power_retention/cuda/decode.h"

namespace statehouse::kernels::bench {

class RandomSlot {
 public:
  // A random S and tail, a normaliser whose quadratic form is positive, gates of 0; the tail begins at row 0 of the
  // ring.
  RandomSlot(const RetentionCase& it, const RetentionSlotLayout& layout, int64_t tail_rows, uint32_t seed);

  const std::vector<char>& bytes() const { return bytes_; }
  // Relative error of y [Hq, d] for the query q [Hq, d].
  double Error(const std::vector<float>& q, const std::vector<float>& y) const;

 private:
  void Put(size_t base, int64_t index, float x, Number number);
  double Get(size_t base, int64_t index, Number number) const;
  void AddState(const float* q, int kv, std::vector<double>* sums, double* denominator) const;
  void AddTail(const float* q, int kv, std::vector<double>* sums, double* denominator) const;

  const RetentionCase it_;
  const RetentionSlotLayout layout_;
  const int64_t tail_rows_;
  std::vector<char> bytes_;
};

}  // namespace statehouse::kernels::bench
