// The gradients of power retention on the GPU against exact ones. Skips where there is no GPU.
#include <cstdio>

#include "tests/kernels/cuda_backward_expect.h"
#include "tests/kernels/golden_op.h"
#include "tests/support/golden.h"
#include "tests/support/gpu.h"

namespace statehouse::kernels {
namespace {

constexpr RetentionDtype kBf16 = RetentionDtype::kBf16;
constexpr RetentionDtype kTypes[] = {RetentionDtype::kBf16, RetentionDtype::kFp16, RetentionDtype::kFloat32};

class CudaBackwardLengths : public CudaBackward, public ::testing::WithParamInterface<int> {};

TEST_P(CudaBackwardLengths, AroundChunksAndTiles_AgreeWithExactGradients) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  const int d = GetParam();
  if (!HasBackwardKernel(d)) GTEST_SKIP() << "not built";
  const RetentionShape shape = {.heads_q = d == 128 ? 2 : 4, .heads_kv = d == 128 ? 1 : 2, .head_dim = d};
  for (const int64_t t : {1, 2, 63, 64, 65, 127, 129, 200, 257, 400}) {
    const BackwardCase it = MakeBackwardCase(RandomBackward(rng, shape, {0, t}), kBf16);
    for (const int64_t chunk : {64, 100, 128, 1024}) {
      if (chunk == 100 && t != 200) continue;
      if (chunk < 1024 && t > 257 && chunk != 128) continue;
      if (chunk < 1024 && t <= chunk / 2) continue;
      ExpectBothPaths(it, chunk, Name(it.problem, chunk));
    }
  }
}
INSTANTIATE_TEST_SUITE_P(HeadSizes, CudaBackwardLengths, ::testing::Values(16, 32, 64, 128),
                         [](const auto& param) { return std::string("d").append(std::to_string(param.param)); });

class CudaBackwardGroups : public CudaBackward, public ::testing::WithParamInterface<int> {};

TEST_P(CudaBackwardGroups, AndGates_AgreeWithExactGradients) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const int d : {64, 128}) {
    for (const float lowest_gate : {0.0f, -1e-3f, -3.0f, -100.0f}) {
      const RetentionShape shape = {.heads_q = GetParam(), .heads_kv = 1, .head_dim = d};
      const BackwardCase it =
          MakeBackwardCase(RandomBackward(rng, shape, {0, d == 64 ? 300 : 150}, lowest_gate), kBf16);
      for (const int64_t chunk : {int64_t{64}, int64_t{512}})
        ExpectBothPaths(it, chunk, Name(it.problem, chunk) + " gate " + std::to_string(lowest_gate));
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Sizes, CudaBackwardGroups, ::testing::Values(1, 3, 12, 16),
                         [](const auto& param) { return std::string("r").append(std::to_string(param.param)); });

class CudaBackwardStates : public CudaBackward, public ::testing::WithParamInterface<int> {};

TEST_P(CudaBackwardStates, OfPackedSequences_AgreeWithExactGradients) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  const int d = GetParam();
  if (!HasBackwardKernel(d)) GTEST_SKIP() << "not built";
  const RetentionShape shape = {.heads_q = 2, .heads_kv = 1, .head_dim = d};
  BackwardProblem problem = RandomBackward(rng, shape, {0, 1, 1, 70, 210}, -0.1f);
  AddStates(rng, problem);
  const BackwardCase both = MakeBackwardCase(problem, kBf16);
  for (const int64_t chunk : {64, 256}) ExpectBothPaths(both, chunk, Name(both.problem, chunk) + " states");
  BackwardProblem part = problem;
  part.dS.clear(), part.dz.clear();
  const BackwardCase initial = MakeBackwardCase(part, kBf16);
  ExpectBothPaths(initial, 128, Name(initial.problem, 128) + " initial state");
  part = problem;
  part.S.clear(), part.z.clear();
  const BackwardCase final = MakeBackwardCase(part, kBf16);
  ExpectBothPaths(final, 128, Name(final.problem, 128) + " final state");
}
INSTANTIATE_TEST_SUITE_P(HeadSizes, CudaBackwardStates, ::testing::Values(16, 64, 128),
                         [](const auto& param) { return std::string("d").append(std::to_string(param.param)); });

TEST_F(CudaBackward, GradientOfAnInitialStateOfZero_IsGivenToo) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  const RetentionShape shape = {.heads_q = 2, .heads_kv = 1, .head_dim = 64};
  BackwardProblem zero = RandomBackward(rng, shape, {0, 150}, -0.05f);
  zero.S.assign(2080 * 64, 0.0), zero.z.assign(2080, 0.0);
  BackwardCase it = MakeBackwardCase(zero, kBf16);
  const RetentionGradients chunks = Plain(it.problem, it.y, it.denominator, kBf16, 64, false);
  const RetentionGradients whole = Plain(it.problem, it.y, it.denominator, kBf16, 1024, false);
  it.problem.S.clear(), it.problem.z.clear();
  ExpectGradients(it, 64, chunks, RetentionPath::kBest, "no initial state", true);
  ExpectGradients(it, 1024, whole, RetentionPath::kMmaSync, "no initial state, one chunk", true);
}

TEST_F(CudaBackward, PackedSequences_DoNotSeeEachOther) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  const RetentionShape shape = {.heads_q = 4, .heads_kv = 2, .head_dim = 64};
  BackwardCase it = MakeBackwardCase(RandomBackward(rng, shape, {0, 1, 1, 130, 386, 389, 700}), kBf16);
  ExpectBothPaths(it, 128, Name(it.problem, 128) + " packed");
  const BackwardRun before = RunBackward(it, 128, RetentionPath::kBest);
  // The last row of one sequence changes; the next one's gradients keep their bits.
  for (int i = 0; i < 4 * 64; ++i) it.problem.dY[385 * 4 * 64 + i] = 3, it.problem.forward.Q[385 * 4 * 64 + i] = -2;
  for (int i = 0; i < 2 * 64; ++i) it.problem.forward.K[385 * 2 * 64 + i] = 2;
  const BackwardRun after = RunBackward(it, 128, RetentionPath::kBest);
  const auto rest = [](const std::vector<float>& x, int64_t width) {
    return std::vector<float>(x.begin() + 386 * width, x.end());
  };
  EXPECT_FALSE(SameBits(before.dK, after.dK));
  EXPECT_TRUE(SameBits(rest(before.dQ, 256), rest(after.dQ, 256)));
  EXPECT_TRUE(SameBits(rest(before.dK, 128), rest(after.dK, 128)));
  EXPECT_TRUE(SameBits(rest(before.dV, 128), rest(after.dV, 128)));
  EXPECT_TRUE(SameBits(rest(before.dlog_G, 2), rest(after.dlog_G, 2)));
}

TEST_F(CudaBackward, SameInputsTwice_SameBits) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const int d : {64, 128}) {
    const RetentionShape shape = {.heads_q = 8, .heads_kv = 4, .head_dim = d};
    BackwardCase it{RandomBackward(rng, shape, {0, 1700, 3000}), kBf16, {}, {}, {}};
    RetentionProblem forward = it.problem.forward;
    const ForwardRun run = RunForward(forward, it.problem.cu_seqlens, kBf16);
    it.y = run.y, it.denominator = run.denominator;
    const BackwardRun first = RunBackward(it, 256, RetentionPath::kBest, true);
    for (int turn = 0; turn < 4; ++turn) {
      const BackwardRun again = RunBackward(it, 256, RetentionPath::kBest, true);
      EXPECT_TRUE(SameBits(first.dQ, again.dQ) && SameBits(first.dK, again.dK) && SameBits(first.dV, again.dV));
      EXPECT_TRUE(SameBits(first.dlog_G, again.dlog_G));
      EXPECT_TRUE(SameBits(first.dinitial.S, again.dinitial.S) && SameBits(first.dinitial.z, again.dinitial.z));
    }
  }
}

TEST_F(CudaBackward, QueriesThatNothingAnswers_PassNothingBack) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  const RetentionShape shape = {.heads_q = 1, .heads_kv = 1, .head_dim = 64};
  BackwardProblem problem = RandomBackward(rng, shape, {0, 200});
  std::fill(problem.forward.Q.begin(), problem.forward.Q.end(), 0.0f);
  const BackwardCase it = MakeBackwardCase(problem, kBf16);
  const BackwardRun run = RunBackward(it, 64, RetentionPath::kBest);
  for (const std::vector<float>* gradient : {&run.dQ, &run.dK, &run.dV, &run.dlog_G}) {
    for (const float x : *gradient) ASSERT_EQ(x, 0.0f);
  }
}

TEST_F(CudaBackward, GoldenCases_Agree) {
  const auto cases = testing::FindGoldenCases(testing::GoldenKind::kOp);
  ASSERT_TRUE(cases.ok()) << cases.status();
  for (const auto& path : *cases) {
    SCOPED_TRACE(path.string());
    const absl::StatusOr<GoldenOp> golden = GoldenOp::Open(path);
    EXPECT_TRUE(golden.ok()) << golden.status();
    if (!golden.ok()) continue;
    const RetentionShape shape = golden->shape();
    std::printf("%s\n", path.filename().c_str());
    const auto floats = [&](const char* name) { return golden->Floats(name); };
    BackwardProblem problem;
    problem.forward.shape = shape;
    problem.forward.t = golden->batch() * golden->t();
    problem.forward.Q = floats("Q"), problem.forward.K = floats("K"), problem.forward.V = floats("V");
    problem.forward.log_G = floats("log_G"), problem.dY = floats("dY");
    problem.cu_seqlens = golden->cu_seqlens();
    const auto doubles = [&](const char* name) {
      const std::vector<float> x = floats(name);
      return std::vector<double>(x.begin(), x.end());
    };
    for (const RetentionDtype dtype : kTypes) {
      if (!HasBackwardKernel(problem.forward.shape.head_dim, dtype, problem.forward.shape.degree)) {
        std::printf("  no kernel: %s, degree %d, d %d\n", RetentionDtypeName(dtype), problem.forward.shape.degree,
                    problem.forward.shape.head_dim);
        continue;
      }
      BackwardProblem rounded = problem;
      bool is_rounded = false;
      for (std::vector<float>* values : {&rounded.forward.Q, &rounded.forward.K, &rounded.forward.V, &rounded.dY}) {
        const std::vector<float> given = *values;
        Round(*values, dtype);
        is_rounded = is_rounded || !SameBits(given, *values);
      }
      BackwardCase it = MakeBackwardCase(rounded, dtype);
      if (is_rounded) {
        // What the type cannot hold is another problem, with other gradients than the file's.
        std::printf("  %s: inputs were rounded; exact gradients are computed\n", RetentionDtypeName(dtype));
        ASSERT_NE(dtype, kBf16) << "golden inputs are bf16 numbers";
      } else {
        it.exact.dQ = doubles("dQ"), it.exact.dK = doubles("dK"), it.exact.dV = doubles("dV");
        if (!problem.forward.log_G.empty()) it.exact.dlog_G = doubles("dlog_G");
      }
      const bool has_chunks = problem.forward.shape.degree == 2;
      for (const int64_t chunk : {int64_t{64}, int64_t{1024}}) {
        if (has_chunks || chunk >= golden->t()) ExpectBothPaths(it, chunk, Name(it.problem, chunk, dtype));
      }
    }
  }
}

TEST(RetentionBackwardChunk, ShortSequences_AreOneChunk) {
  const CudaRetentionShape plain = {.heads_q = 8, .heads_kv = 8, .head_dim = 64};
  EXPECT_EQ(RetentionBackwardChunk(plain, 0), 1);
  EXPECT_EQ(RetentionBackwardChunk(plain, 100), 100);
  EXPECT_EQ(RetentionBackwardChunk(plain, 3904), 3904);  // 1024 + 2304 (2 + 3) / 4
  EXPECT_EQ(RetentionBackwardChunk(plain, 3905), 1024);
  EXPECT_EQ(RetentionBackwardChunk({.heads_q = 24, .heads_kv = 2, .head_dim = 128}, 5920), 5920);
  EXPECT_EQ(RetentionBackwardChunk(plain, 200, 200), 200);
  EXPECT_EQ(RetentionBackwardChunk(plain, 201, 200), 1024);
  EXPECT_EQ(RetentionBackwardChunk(plain, 100'000, 1'000'000), 1024) << "no chunk is longer than 65536 rows";
}

// States before chunks that the forward pass left are the same numbers as those computed again.
TEST_F(CudaBackward, WithStatesKeptByTheForwardPass_GivesTheSameBits) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const RetentionDtype dtype : {kBf16, RetentionDtype::kFp16, RetentionDtype::kFloat32}) {
    for (const int d : {64, 128}) {
      for (const bool has_states : {false, true}) {
        const RetentionShape shape = {.heads_q = 4, .heads_kv = 2, .head_dim = d};
        BackwardProblem problem = RandomBackward(rng, shape, {0, 130, 131, 400}, -0.02f, dtype);
        if (has_states) AddStates(rng, problem);
        const int64_t rows = problem.forward.t * shape.heads_q;
        const BackwardCase it = {
            std::move(problem), dtype, Normals(rng, rows * d), std::vector<float>(rows, 100.0f), {}};
        for (const RetentionPath path : {RetentionPath::kBest, RetentionPath::kMmaSync}) {
          const BackwardRun again = RunBackward(it, 64, path), kept = RunBackward(it, 64, path, false, true);
          const std::string what = Name(it.problem, 64, dtype) + (has_states ? " with states" : "");
          EXPECT_TRUE(SameBits(kept.dQ, again.dQ)) << what;
          EXPECT_TRUE(SameBits(kept.dK, again.dK)) << what;
          EXPECT_TRUE(SameBits(kept.dV, again.dV)) << what;
          EXPECT_TRUE(SameBits(kept.dlog_G, again.dlog_G)) << what;
          EXPECT_TRUE(SameBits(kept.dinitial.S, again.dinitial.S)) << what;
          EXPECT_TRUE(SameBits(kept.dinitial.z, again.dinitial.z)) << what;
        }
      }
    }
  }
}

// y and denominators from the GPU's own forward pass carry its error; from them a plain program does no better.
TEST_F(CudaBackward, AfterTheForwardPass_ErrorsAreThoseOfAPlainProgram) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const int d : {64, 128}) {
    const RetentionShape shape = {.heads_q = 2, .heads_kv = 1, .head_dim = d, .chunk = 128};
    BackwardCase it = MakeBackwardCase(RandomBackward(rng, shape, {0, 500}, -0.02f), kBf16);
    const ForwardRun forward = RunForward(it.problem.forward, it.problem.cu_seqlens, kBf16);
    it.y = forward.y, it.denominator = forward.denominator;
    ExpectBothPaths(it, 128, Name(it.problem, 128) + " after the forward pass");
    // The plain program has the same y and denominators: what they are off by shows only here.
    const BackwardRun run = RunBackward(it, 128, RetentionPath::kBest);
    EXPECT_LE(RelativeError(run.dQ, it.exact.dQ), 1e-2) << d;
    EXPECT_LE(RelativeError(run.dK, it.exact.dK), 1e-2) << d;
    EXPECT_LE(RelativeError(run.dV, it.exact.dV), 1e-2) << d;
    EXPECT_LE(RelativeError(run.dlog_G, it.exact.dlog_G), 2e-2) << d;
  }
}

}  // namespace
}  // namespace statehouse::kernels
