#include "kernels/bench/cuda/gpu_slot.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstring>

namespace statehouse::kernels::bench {
namespace {

constexpr float kByteScale = 0x1p-7f;  // of every row of a state in int8

}  // namespace

RandomSlot::RandomSlot(const RetentionCase& it, const RetentionSlotLayout& layout, int64_t tail_rows, uint32_t seed)
    : it_(it), layout_(layout), tail_rows_(tail_rows), bytes_(layout.bytes()) {
  std::mt19937 rng(seed);
  const auto small = [&] { return static_cast<float>(static_cast<int>(rng() % 2001) - 1000) / 1000.0f; };
  const int64_t P = RetentionStateRows(it.head_dim);
  for (int64_t i = 0; i < it.heads_kv * P * it.head_dim; ++i) Put(layout.state(), i, small(), it.state_dtype);
  if (it.state_dtype == Number::kInt8) {
    for (int64_t i = 0; i < it.heads_kv * P / 8; ++i) Put(layout.scales(), i, kByteScale, Number::kBf16);
  }
  for (int kv = 0; kv < it.heads_kv; ++kv) {
    for (int i = 0; i < it.head_dim; ++i)
      Put(layout.normalizer(), kv * P + RetentionStateRow(i, i, it.head_dim), 30, Number::kFloat32);
  }
  for (int64_t i = 0; i < layout.shape().tail_rows * it.heads_kv * it.head_dim; ++i) {
    Put(layout.keys(), i, small(), it.dtype);
    Put(layout.values(), i, small(), it.dtype);
  }
}

double RandomSlot::Error(const std::vector<float>& q, const std::vector<float>& y) const {
  double error = 0, norm = 0;
  for (int head = 0; head < it_.heads_q; head += 5) {
    const int kv = head / (it_.heads_q / it_.heads_kv);
    const float* query = q.data() + int64_t{head} * it_.head_dim;
    std::vector<double> sums(it_.head_dim);
    double denominator = 0;
    if (tail_rows_ < it_.length) AddState(query, kv, &sums, &denominator);
    AddTail(query, kv, &sums, &denominator);
    for (int i = 0; i < it_.head_dim; ++i) {
      const double want = sums[i] / denominator, got = y[int64_t{head} * it_.head_dim + i];
      error += (got - want) * (got - want);
      norm += want * want;
    }
  }
  const double out = std::sqrt(error / norm);
  return std::isfinite(out) ? out : INFINITY;
}

void RandomSlot::AddState(const float* q, int kv, std::vector<double>* sums, double* denominator) const {
  const int d = it_.head_dim;
  for (int i = 0; i < d; ++i) {
    for (int j = i / 8 * 8; j < d; ++j) {
      const int64_t at = kv * RetentionStateRows(d) + RetentionStateRow(i, j, d);
      const double phi = (i / 8 < j / 8 ? 2.0 : 1.0) * q[i] * q[j];
      *denominator += phi * Get(layout_.normalizer(), at, Number::kFloat32);
      for (int column = 0; column < d; ++column)
        (*sums)[column] += phi * Get(layout_.state(), at * d + column, it_.state_dtype);
    }
  }
}

void RandomSlot::AddTail(const float* q, int kv, std::vector<double>* sums, double* denominator) const {
  const int d = it_.head_dim;
  for (int64_t row = 0; row < tail_rows_; ++row) {
    const int64_t at = (kv * layout_.shape().tail_rows + row) * d;
    double score = 0;
    for (int i = 0; i < d; ++i) score += q[i] * Get(layout_.keys(), at + i, it_.dtype);
    *denominator += score * score;
    for (int i = 0; i < d; ++i) (*sums)[i] += score * score * Get(layout_.values(), at + i, it_.dtype);
  }
}

void RandomSlot::Put(size_t base, int64_t index, float x, Number number) {
  const auto put = [&](auto value) {
    std::memcpy(bytes_.data() + base + index * sizeof(value), &value, sizeof(value));
  };
  if (number == Number::kBf16) {
    put(__nv_bfloat16(x));
  } else if (number == Number::kFp16) {
    put(__half(x));
  } else if (number == Number::kInt8) {
    put(static_cast<int8_t>(std::lround(127 * x)));
  } else {
    put(x);
  }
}

double RandomSlot::Get(size_t base, int64_t index, Number number) const {
  const auto get = [&](auto value) {
    std::memcpy(&value, bytes_.data() + base + index * sizeof(value), sizeof(value));
    return static_cast<double>(static_cast<float>(value));
  };
  if (number == Number::kBf16) return get(__nv_bfloat16());
  if (number == Number::kInt8) return kByteScale * get(int8_t());
  return number == Number::kFp16 ? get(__half()) : get(float());
}

}  // namespace statehouse::kernels::bench
