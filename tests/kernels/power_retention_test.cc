// Right values: quadratic, chunked and recurrent forms against the definition in double.
#include "kernels/power_retention/power_retention.h"

#include "tests/kernels/retention_fixture.h"

namespace statehouse::kernels {
namespace {

// Relative to the norm of the whole output. Chains of up to 2e4 fused multiply-adds in float32, and state-form sums
// whose terms cancel down to 1/d of their size.
constexpr double kTolerance = 2e-5;

TEST(PowerRetention, References_AgreeWithEachOther) {
  std::mt19937 rng = SeededRng(51);
  for (const int degree : {2, 4}) {
    const RetentionProblem problem =
        RandomProblem(rng, {.heads_q = 4, .heads_kv = 2, .head_dim = 5, .degree = degree}, 40);
    std::vector<double> recurrent(problem.Q.size());
    PowerRetentionRecurrentRef({.Q = problem.Q.data(),
                                .K = problem.K.data(),
                                .V = problem.V.data(),
                                .log_G = problem.log_G.data(),
                                .Y = recurrent.data(),
                                .t = 40,
                                .heads_q = 4,
                                .heads_kv = 2,
                                .head_dim = 5,
                                .degree = degree,
                                .scale = 1 / std::sqrt(5.0)});
    const std::vector<double> quadratic = QuadraticReference(problem);
    for (size_t i = 0; i < quadratic.size(); ++i)
      EXPECT_NEAR(recurrent[i], quadratic[i], 1e-9 * (1 + std::fabs(quadratic[i])));
  }
}

struct Form {
  int64_t chunk, switch_over;
};

std::vector<Form> FormsOf(int64_t chunk) {
  return {{chunk, 0}, {chunk, chunk}, {chunk, 3 * chunk}, {chunk, kSwitchOverAuto}, {chunk, kNeverSwitch}};
}

void ExpectAllForms(RetentionProblem problem, const std::vector<int64_t>& chunks, double tolerance = kTolerance) {
  const std::vector<double> want = QuadraticReference(problem);
  ThreadPool pool(2);
  for (const int64_t chunk : chunks) {
    for (const Form& form : FormsOf(chunk)) {
      problem.shape.chunk = form.chunk;
      problem.shape.switch_over = form.switch_over;
      problem.shape.max_tail_tokens = form.switch_over == kNeverSwitch ? problem.t : 0;
      const bool has_no_state_form = problem.shape.degree == 4 && problem.shape.head_dim > 32;
      if (has_no_state_form && form.switch_over != kNeverSwitch) continue;
      const std::vector<float> Y = RunInPieces(problem, problem.t, pool);
      EXPECT_LE(RelativeError(Y, want), tolerance)
          << "d " << problem.shape.head_dim << ", C " << form.chunk << ", switch-over " << form.switch_over;
    }
  }
}

TEST(PowerRetention, AllForms_AgreeWithTheDefinition_Degree2) {
  std::mt19937 rng = SeededRng(52);
  ForEachTarget([&](int64_t) {
    for (const int head_dim : {1, 2, 7, 16, 31, 33, 64, 80}) {
      ExpectAllForms(RandomProblem(rng, {.heads_q = 3, .heads_kv = 1, .head_dim = head_dim}, 150), {1, 16, 37, 64});
    }
  });
}

TEST(PowerRetention, AllForms_AgreeWithTheDefinition_Degree4) {
  std::mt19937 rng = SeededRng(53);
  ForEachTarget([&](int64_t) {
    for (const int head_dim : {1, 3, 8, 13}) {
      ExpectAllForms(RandomProblem(rng, {.heads_q = 2, .heads_kv = 1, .head_dim = head_dim, .degree = 4}, 90), {5, 16});
    }
  });
  ExpectAllForms(RandomProblem(rng, {.heads_q = 1, .heads_kv = 1, .head_dim = 32, .degree = 4}, 60), {16}, 5e-5);
  ExpectAllForms(RandomProblem(rng, {.heads_q = 1, .heads_kv = 1, .head_dim = 100, .degree = 4}, 60), {16});
}

TEST(PowerRetention, LargeHeads_AgreeWithTheDefinition) {
  std::mt19937 rng = SeededRng(54);
  for (const int head_dim : {128, 255, 256}) {
    ExpectAllForms(RandomProblem(rng, {.heads_q = 2, .heads_kv = 1, .head_dim = head_dim}, 100), {32});
  }
}

TEST(PowerRetention, GroupedHeads_UseTheirKeyValueHead) {
  std::mt19937 rng = SeededRng(55);
  for (const auto& [heads_q, heads_kv] : {std::pair{1, 1}, {4, 4}, {12, 1}, {6, 2}, {130, 1}}) {
    ExpectAllForms(RandomProblem(rng, {.heads_q = heads_q, .heads_kv = heads_kv, .head_dim = 16}, 70), {16});
  }
}

TEST(PowerRetention, NoGates_ForgetNothing) {
  std::mt19937 rng = SeededRng(56);
  ExpectAllForms(RandomProblem(rng, {.heads_q = 2, .heads_kv = 2, .head_dim = 24}, 200, /*lowest_gate=*/0), {16, 50});
}

TEST(PowerRetention, LengthsAroundAChunk_AgreeWithTheDefinition) {
  std::mt19937 rng = SeededRng(57);
  for (const int64_t t : {1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49}) {
    ExpectAllForms(RandomProblem(rng, {.heads_q = 2, .heads_kv = 1, .head_dim = 12}, t), {16});
  }
}

TEST(PowerRetention, ClosedGates_ForgetEverythingBefore) {
  std::mt19937 rng = SeededRng(58);
  RetentionProblem problem = RandomProblem(rng, {.heads_q = 1, .heads_kv = 1, .head_dim = 8}, 120);
  std::fill(problem.log_G.begin(), problem.log_G.end(), -1e4f);
  ExpectAllForms(problem, {16});
  // Many closed gates, then open ones: what open gates differ by must not drown in the sum of the closed ones.
  for (int64_t t = 0; t < problem.t; ++t) problem.log_G[t] = t % 64 < 50 ? -150.0f : -1e-3f;
  ExpectAllForms(problem, {64, 16}, 5e-6);
}

TEST(PowerRetention, OpenGatesOver100kTokens_StayRight) {
  std::mt19937 rng = SeededRng(59);
  RetentionProblem problem = RandomProblem(rng, {.heads_q = 1, .heads_kv = 1, .head_dim = 4, .chunk = 128}, 100'000);
  problem.log_G = Uniforms(rng, problem.t, -2e-5f, -1e-6f);
  ThreadPool pool(2);
  const std::vector<float> Y = RunInPieces(problem, 4096, pool);
  // The last rows against the definition; the first rows would hide an error that grows.
  RetentionProblem last = problem;
  const int64_t rows = 3;
  std::vector<double> want(rows * 4);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t t = problem.t - rows + row;
    double den = 0, log_decay = 0;
    std::vector<double> num(4);
    for (int64_t j = t; j >= 0; --j) {
      double score = 0;
      for (int i = 0; i < 4; ++i) score += static_cast<double>(problem.Q[t * 4 + i]) * problem.K[j * 4 + i];
      const double weight = score * score * std::exp(log_decay);
      for (int i = 0; i < 4; ++i) num[i] += weight * problem.V[j * 4 + i];
      den += weight;
      log_decay += problem.log_G[j];
    }
    for (int i = 0; i < 4; ++i) want[row * 4 + i] = num[i] / den;
  }
  const std::vector<float> got(Y.end() - rows * 4, Y.end());
  // A mean of 1e5 values is about 1/300 of their size, so the tolerance is relative to the values, not to their mean.
  EXPECT_TRUE(Near(got, want, [](size_t) { return 2e-5; }));
  for (const float y : Y) ASSERT_TRUE(std::isfinite(y));
}

TEST(PowerRetention, OrthogonalQuery_GivesZeroNotNaN) {
  for (const int64_t switch_over : {int64_t{0}, int64_t{64}}) {
    RetentionProblem problem;
    problem.shape = {.heads_q = 1, .heads_kv = 1, .head_dim = 4, .chunk = 16, .switch_over = switch_over};
    problem.t = 70;
    problem.Q.assign(280, 0.0f);
    problem.K.assign(280, 0.0f);
    problem.V.assign(280, 3.0f);
    problem.log_G.assign(70, -0.1f);
    for (int64_t t = 0; t < 70; ++t) {
      problem.Q[t * 4] = 1.0f;
      problem.K[t * 4 + 1] = 1.0f;
    }
    ThreadPool pool(2);
    for (const float y : RunInPieces(problem, 70, pool)) ASSERT_EQ(y, 0.0f);
    // Below the smallest normal number counts as nothing, too.
    for (int64_t t = 0; t < 70; ++t) problem.Q[t * 4 + 1] = 1e-21f;
    for (const float y : RunInPieces(problem, 70, pool)) ASSERT_EQ(y, 0.0f);
  }
}

TEST(PowerRetention, RowsOfNorm1000_StayFiniteAndRight) {
  std::mt19937 rng = SeededRng(60);
  for (const int degree : {2, 4}) {
    RetentionProblem problem = RandomProblem(rng, {.heads_q = 2, .heads_kv = 1, .head_dim = 16, .degree = degree}, 100);
    for (float& x : problem.Q) x *= 250;
    for (float& x : problem.K) x *= 250;
    for (float& x : problem.V) x *= 250;
    ExpectAllForms(problem, {16});
  }
}

TEST(PowerRetention, SeveralSequencesAtOnce_AreEachTheirOwn) {
  std::mt19937 rng = SeededRng(61);
  const RetentionShape shape{.heads_q = 4, .heads_kv = 2, .head_dim = 20, .chunk = 16, .switch_over = 32};
  ThreadPool pool(3);
  std::vector<RetentionProblem> problems;
  std::vector<std::unique_ptr<RetentionSequence>> sequences;
  std::vector<std::vector<float>> outputs, alone;
  for (int i = 0; i < 7; ++i) {
    problems.push_back(RandomProblem(rng, shape, 200));
    sequences.push_back(std::make_unique<RetentionSequence>(shape, pool));
    outputs.emplace_back(problems[i].Q.size());
    alone.push_back(RunInPieces(problems[i], 200, pool));
    sequences[i]->Step(problems[i], 32 + 9 * i, outputs[i]);
  }
  // One call with 1 … 100 rows of each; the first sequence is first brought past the switch-over.
  sequences[0]->Step(problems[0], 1, outputs[0]);
  std::vector<RetentionRows> rows;
  for (int i = 0; i < 7; ++i) rows.push_back(sequences[i]->Rows(problems[i], 1 + (i * 37) % 100, outputs[i]));
  RetentionScratch scratch;
  ASSERT_TRUE(scratch.Reserve(sequences[0]->layout(), 1000, pool.num_threads()).ok());
  PowerRetention(sequences[0]->layout(), rows, scratch, pool);
  for (int i = 0; i < 7; ++i) {
    const int64_t done = (rows[i].position + rows[i].num_rows) * 4 * 20;
    EXPECT_EQ(std::memcmp(outputs[i].data(), alone[i].data(), done * sizeof(float)), 0) << "sequence " << i;
  }
}

TEST(PowerRetention, ScratchSays_WhatItHolds) {
  const RetentionLayout layout = *RetentionLayout::Make({.heads_q = 2, .heads_kv = 1, .head_dim = 64});
  RetentionScratch scratch;
  ASSERT_TRUE(scratch.Reserve(layout, 512, 2).ok());
  const int64_t rows_bytes = layout.shape().switch_over / 128 * layout.block_floats() * 4;
  EXPECT_GT(scratch.bytes(), rows_bytes);
  EXPECT_GT(SwitchOverFlops(layout), 0);
}

}  // namespace
}  // namespace statehouse::kernels
