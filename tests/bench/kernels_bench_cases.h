// What kernels_bench measures: each case owns its data, checks itself against the slow twin, and runs once per call.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "kernels/matmul/matmul.h"
#include "kernels/parallel/thread_pool.h"

namespace statehouse::bench {

struct Case {
  std::string name;
  std::string shape;
  double bytes = 0;  // that one run must read
  double flops = 0;  // that one run must do
  std::function<void()> run;
};

// Whether every operation agrees with its reference here and now; prints what does not.
bool CheckResults(kernels::ThreadPool& pool);

// Products with the same weights every time would be read from the cache: decode cycles through `copies` of them.
Case MatMulDecode(kernels::WeightType type, int64_t batch, int64_t size_n, int64_t size_k, int copies,
                  kernels::ThreadPool& pool);
Case MatMulPrefill(kernels::WeightType type, int64_t rows, int64_t size_n, int64_t size_k, kernels::ThreadPool& pool);
// OpenBLAS sgemm with as many threads as the pool.
Case SgemmPrefill(int64_t rows, int64_t size_n, int64_t size_k, kernels::ThreadPool& pool);

struct RetentionCase {
  int heads_q;
  int heads_kv;
  int head_dim;
  int64_t sequences;  // decode: one row each
  int64_t rows;       // prefill: rows per call
};
// One token of each of many sequences past their switch-over; together their states exceed the cache.
Case RetentionDecode(const RetentionCase& shape, kernels::ThreadPool& pool);
// `rows` rows (a multiple of C) of one sequence past its switch-over.
Case RetentionPrefill(const RetentionCase& shape, kernels::ThreadPool& pool);

}  // namespace statehouse::bench
