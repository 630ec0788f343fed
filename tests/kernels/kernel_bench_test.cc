// What measures kernels must itself be right: it refuses wrong results, and counts what the task needs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/bench/cpu_bench.h"
#include "kernels/bench/retention_case.h"
#include "kernels/power_retention/backward_ref.h"

namespace statehouse::kernels::bench {
namespace {

using testing::HasSubstr;

RetentionCase SmallCase(Pass pass) {
  RetentionCase it;
  it.pass = pass;
  it.batch = 2, it.length = 40, it.heads_q = 4, it.heads_kv = 2, it.head_dim = 8;
  it.dtype = Number::kFloat32;
  return it;
}

std::vector<float> Random(int64_t size, float low, float high) {
  static std::mt19937 rng(std::random_device{}());
  std::uniform_real_distribution<float> uniform(low, high);
  std::vector<float> out(size);
  for (float& x : out) x = uniform(rng);
  return out;
}

// A case's inputs, and what the reference in double makes of them.
struct Solved {
  HostInputs in;
  HostGradients out;
};

Solved Solve(const RetentionCase& it) {
  const int64_t rows = it.batch * it.length, queries = rows * it.heads_q * it.head_dim,
                keys = rows * it.heads_kv * it.head_dim;
  Solved all;
  all.in = {Random(queries, -1, 1), Random(keys, -1, 1), Random(keys, -1, 1), Random(rows * it.heads_kv, -0.1f, 0)};
  all.out.dY = Random(queries, -1, 1);
  for (int64_t b = 0; b < it.batch; ++b) {
    const auto part = [&](const std::vector<float>& from, int64_t row_size) {
      const auto begin = from.begin() + b * it.length * row_size;
      return std::vector<double>(begin, begin + it.length * row_size);
    };
    const int64_t query = int64_t{it.heads_q} * it.head_dim, key = int64_t{it.heads_kv} * it.head_dim;
    RetentionDoubles doubles;
    doubles.t = it.length, doubles.heads_q = it.heads_q, doubles.heads_kv = it.heads_kv;
    doubles.head_dim = it.head_dim, doubles.scale = 1 / std::sqrt(static_cast<double>(it.head_dim));
    doubles.Q = part(all.in.Q, query), doubles.K = part(all.in.K, key), doubles.V = part(all.in.V, key);
    doubles.log_G = part(all.in.log_G, it.heads_kv);
    const RetentionDoubleOutputs forward = PowerRetentionForwardRef(doubles);
    const RetentionGradients gradients = PowerRetentionBackwardRef(doubles, part(all.out.dY, query), {}, {});
    const auto append = [](std::vector<float>* to, const std::vector<double>& from) {
      to->insert(to->end(), from.begin(), from.end());
    };
    append(&all.out.y, forward.y), append(&all.out.denominator, forward.denominator);
    append(&all.out.dQ, gradients.dQ), append(&all.out.dK, gradients.dK), append(&all.out.dV, gradients.dV);
  }
  return all;
}

TEST(KernelBench, RightResults_HaveSmallErrors) {
  const RetentionCase it = SmallCase(Pass::kForwardBackward);
  const Solved solved = Solve(it);
  EXPECT_LT(ForwardError(it, solved.in, solved.out.y, 200), 1e-6);
  EXPECT_LT(GradientError(it, solved.in, solved.out, 200), 1e-5);
}

TEST(KernelBench, OneWrongTensor_IsNoticed) {
  const RetentionCase it = SmallCase(Pass::kForwardBackward);
  const Solved solved = Solve(it);
  for (std::vector<float> HostGradients::*tensor : {&HostGradients::dQ, &HostGradients::dK, &HostGradients::dV}) {
    HostGradients wrong = solved.out;
    for (float& x : wrong.*tensor) x *= 1.1f;
    EXPECT_GT(GradientError(it, solved.in, wrong, 200), 0.05);
  }
  std::vector<float> y = solved.out.y;
  y.assign(y.size(), NAN);
  EXPECT_TRUE(std::isinf(ForwardError(it, solved.in, y, 1)));
}

TEST(KernelBench, OnTheCpu_ForwardAndDecodeAreCheckedAndTimed) {
  ThreadPool pool(2);
  for (const Pass pass : {Pass::kForward, Pass::kDecode}) {
    RetentionCase it = SmallCase(pass);
    it.length = 300, it.chunk = 32;
    const auto figure = MeasureOnCpu(it, /*runs=*/5, /*max_seconds=*/1, pool);
    ASSERT_TRUE(figure.ok()) << figure.status();
    EXPECT_LT(figure->error, 1e-4);
    EXPECT_GT(figure->min, 0);
    EXPECT_LE(figure->min, figure->median);
    EXPECT_EQ(figure->runs, 5);
    EXPECT_EQ(figure->chunk, 32);
  }
}

TEST(KernelBench, WhatTheCpuLacks_IsNamed) {
  ThreadPool pool(1);
  EXPECT_THAT(std::string(MeasureOnCpu(SmallCase(Pass::kBackward), 1, 1, pool).status().message()), HasSubstr("bwd"));
  RetentionCase it = SmallCase(Pass::kForward);
  it.dtype = Number::kBf16;
  EXPECT_THAT(std::string(MeasureOnCpu(it, 1, 1, pool).status().message()), HasSubstr("bf16"));
  it = SmallCase(Pass::kForward);
  it.heads_q = 3;
  EXPECT_THAT(std::string(MeasureOnCpu(it, 1, 1, pool).status().message()), HasSubstr("kv-heads 2"));
}

TEST(KernelBench, NeededWork_IsThatOfTheFormulas) {
  RetentionCase it;  // t 4096, 8 heads, d 64: D = 2080
  const double in_rows = 4096.0 * (2.0 * 4096 * 64 * 8);
  EXPECT_EQ(NeededFlops(it, 4096), in_rows);  // one chunk needs no state
  EXPECT_EQ(NeededFlops(it, 1024), in_rows) << "and is cheaper still than chunks with states";
  it.length = 65536;
  // The first chunk reads no state, and the last one is folded into none.
  EXPECT_EQ(NeededFlops(it, 1024), (65536.0 - 1024) * 2 * 2080 * 65 * 16 + 65536.0 * (2 * 1024 * 64 * 8));
  it.length = 256;
  EXPECT_EQ(NeededFlops(it, 128), 256.0 * (2 * 256 * 64 * 8)) << "not what states would cost, which nobody pays";
  it.length = 4096;
  EXPECT_EQ(NeededBytes(it, 1024), 4096.0 * (2 * 64 * 32 + 4 * 8));
  it.pass = Pass::kDecode;
  EXPECT_EQ(TailRows(100, 128), 100);
  EXPECT_EQ(TailRows(4096 + 5, 128), 133);
  EXPECT_EQ(NeededBytes(it, 128), 8.0 * (2080 * 64 * 4 + 2080 * 4 + 128 * (2 * 64 * 2 + 4)));
}

}  // namespace
}  // namespace statehouse::kernels::bench
