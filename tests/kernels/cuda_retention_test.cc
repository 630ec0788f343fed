// Power retention on the GPU against the definition in double. Skips where there is no GPU.
#include <cstdio>

#include "kernels/power_retention/backward_ref.h"
#include "tests/kernels/cuda_retention_fixture.h"
#include "tests/kernels/error_ratios.h"
#include "tests/kernels/golden_op.h"
#include "tests/kernels/retention_forward_plain.h"
#include "tests/support/golden.h"
#include "tests/support/gpu.h"

namespace statehouse::kernels {
namespace {

constexpr RetentionDtype kBf16 = RetentionDtype::kBf16;

constexpr RetentionDtype kTypes[] = {RetentionDtype::kBf16, RetentionDtype::kFp16, RetentionDtype::kFloat32};

// What float32 sums may come to where a plain program happens to lose nothing.
constexpr double kFloatFloor = 2e-7;

class CudaRetention : public ::testing::Test {
 protected:
  void SetUp() override { testing::HasGpu(); }
};

RetentionProblem RoundedProblem(std::mt19937& rng, const RetentionShape& shape, int64_t t, RetentionDtype dtype,
                                float lowest_gate = -0.5f) {
  RetentionProblem problem = RandomProblem(rng, shape, t, lowest_gate);
  Round(problem.Q, dtype), Round(problem.K, dtype), Round(problem.V, dtype);
  return problem;
}

// What a case must come to: the definition, and how far from it the plain implementation is.
struct Expected {
  std::vector<double> y;
  double plain_error = 0;
  RetentionDtype dtype = kBf16;
  std::string form = "forward, pairs";
};
Expected Expect(const RetentionProblem& problem, std::span<const int64_t> cu_seqlens, RetentionDtype dtype) {
  Expected out{.y = PackedReference(problem, cu_seqlens), .dtype = dtype};
  out.plain_error = RelativeError(PlainImplementation(problem, cu_seqlens, dtype), out.y);
  if (problem.shape.degree == 4) out.form = "forward, degree 4";
  return out;
}

// The same for the chunks of problem.shape.chunk rows: in float32, where rounding is not what counts, sums through a
// state lose more than sums over pairs, and a plain program with the same chunks is the yardstick.
Expected ForChunks(const Expected& expected, const RetentionProblem& problem, std::span<const int64_t> cu_seqlens) {
  Expected out = expected;
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < cu_seqlens.size(); ++s) longest = std::max(longest, cu_seqlens[s + 1] - cu_seqlens[s]);
  if (longest <= problem.shape.chunk) return out;
  if (problem.shape.degree == 4) {
    // Sums over products of four numbers cancel to 1 / d² of their parts; float32 loses as much.
    if (problem.shape.head_dim > kMostFourthDim) return out;
    out.form = "forward, degree 4, states";
    if (out.dtype == RetentionDtype::kFloat32) out.plain_error = 1e-5;
    return out;
  }
  out.form = "forward, states";
  if (out.dtype == RetentionDtype::kFloat32) out.plain_error = RelativeError(PlainChunks(problem, cu_seqlens), out.y);
  return out;
}

// Checks a run against both; prints both errors.
void ExpectClose(const std::vector<float>& y, const Expected& expected, const std::string& what) {
  const double plain = expected.plain_error;
  const double error = RelativeError(y, expected.y);
  const double yardstick = expected.dtype == RetentionDtype::kFloat32 ? std::max(plain, kFloatFloor) : plain;
  std::printf("  %-44s error %.2e, plain %.2e, ratio %.2f\n", what.c_str(), error, plain, error / yardstick);
  ErrorRatios::Get().Note(expected.dtype, expected.form, error / yardstick);
  EXPECT_LE(error, kErrorRatio * yardstick) << what;
}

// Runs a case with the best instructions and with those of sm_80.
void ExpectBothPathsClose(const RetentionProblem& problem, std::span<const int64_t> cu_seqlens, RetentionDtype dtype,
                          const Expected& for_pairs, const std::string& what) {
  Expected expected = ForChunks(for_pairs, problem, cu_seqlens);
  const ForwardRun run = RunForward(problem, cu_seqlens, dtype);
  if (dtype == kBf16 && expected.form == "forward, states" &&
      RelativeError(run.y, expected.y) > kErrorRatio * expected.plain_error) {
    // Where gates leave few keys and q is nearly orthogonal to them, what a state's rounding costs is drawn by lot:
    // then a plain program that rounds a state too decides. It is slow, so only then.
    const auto round = [](float x) { return Rounded(x, kBf16); };
    const double through_states = RelativeError(PlainChunks(problem, cu_seqlens, round), expected.y);
    expected.plain_error = std::max(expected.plain_error, through_states);
  }
  ExpectClose(run.y, expected, what);
  if (problem.shape.head_dim < 64 || dtype != kBf16 || problem.shape.degree != 2) return;  // one path only
  ExpectClose(RunForward(problem, cu_seqlens, dtype, {}, false, RetentionPath::kMmaSync).y, expected,
              what + " mma.sync");
}

std::string Name(const RetentionShape& shape, int64_t t, RetentionDtype dtype) {
  return std::string(RetentionDtypeName(dtype)) + " t " + std::to_string(t) + " Hq " + std::to_string(shape.heads_q) +
         " Hk " + std::to_string(shape.heads_kv) + " d " + std::to_string(shape.head_dim) + " C " +
         std::to_string(shape.chunk);
}

bool HasKernel(const RetentionShape& shape, RetentionDtype dtype) {
  const int64_t lengths[] = {0, 1};
  return CudaRetentionPlan::Make({.heads_q = shape.heads_q,
                                  .heads_kv = shape.heads_kv,
                                  .head_dim = shape.head_dim,
                                  .degree = shape.degree,
                                  .dtype = dtype},
                                 lengths)
      .ok();
}

TEST_F(CudaRetention, LengthsAroundChunksAndTiles_AgreeWithTheDefinition) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const RetentionDtype dtype : kTypes) {
    for (const int d : {16, 32, 64, 128}) {
      RetentionShape shape = {.heads_q = 4, .heads_kv = 2, .head_dim = d};
      if (!HasKernel(shape, dtype)) continue;
      for (const int64_t t : {1, 63, 64, 65, 127, 129, 200, 257, 513}) {
        const RetentionProblem problem = RoundedProblem(rng, shape, t, dtype);
        const int64_t lengths[] = {0, t};
        const Expected want = Expect(problem, lengths, dtype);
        for (const int64_t chunk : {64, 100, 128, 1024}) {
          RetentionProblem cut = problem;
          cut.shape.chunk = chunk;
          if (chunk != 128 && t > 1 && t < chunk / 2) continue;
          ExpectBothPathsClose(cut, lengths, dtype, want, Name(cut.shape, t, dtype));
        }
      }
    }
  }
}

TEST_F(CudaRetention, OfDegreeFour_AgreesWithTheDefinition) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const RetentionDtype dtype : kTypes) {
    for (const int d : {16, 32, 64, 128}) {
      const RetentionShape shape = {.heads_q = 6, .heads_kv = 2, .head_dim = d, .degree = 4, .chunk = 64};
      const int64_t lengths[] = {0, 1, 130, 400};
      const RetentionProblem problem = RoundedProblem(rng, shape, 400, dtype);
      ExpectBothPathsClose(problem, lengths, dtype, Expect(problem, lengths, dtype),
                           Name(shape, 400, dtype) + " degree 4");
    }
  }
}

TEST_F(CudaRetention, StatesOfDegreeFour_AreTheReferencesAndGoOn) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const RetentionDtype dtype : kTypes) {
    for (const int d : {16, 32}) {
      const int64_t chunk = d == 16 ? 64 : 16, t = d == 16 ? 200 : 50;
      const RetentionShape shape = {.heads_q = 4, .heads_kv = 2, .head_dim = d, .degree = 4, .chunk = chunk};
      const RetentionProblem problem = RoundedProblem(rng, shape, t, dtype, -0.1f);
      const int64_t whole[] = {0, t}, first[] = {0, 2 * chunk}, rest[] = {0, t - 2 * chunk};
      const ForwardRun unbroken = RunForward(problem, whole, dtype, {}, true);
      const auto doubles = [](const std::vector<float>& x) { return std::vector<double>(x.begin(), x.end()); };
      const RetentionDoubleOutputs want = PowerRetentionForwardRef({.t = t,
                                                                    .heads_q = 4,
                                                                    .heads_kv = 2,
                                                                    .head_dim = d,
                                                                    .degree = 4,
                                                                    .scale = 1 / std::sqrt(static_cast<double>(d)),
                                                                    .Q = doubles(problem.Q),
                                                                    .K = doubles(problem.K),
                                                                    .V = doubles(problem.V),
                                                                    .log_G = doubles(problem.log_G)});
      ExpectClose(unbroken.y, ForChunks(Expect(problem, whole, dtype), problem, whole),
                  Name(shape, t, dtype) + " degree 4 from states");
      EXPECT_LE(RelativeError(unbroken.y, want.y), dtype == kBf16                   ? 0x1p-7
                                                   : dtype == RetentionDtype::kFp16 ? 0x1p-10
                                                                                    : 2e-5);
      EXPECT_LE(RelativeError(unbroken.final_state.S, want.S), 2e-6) << d;
      EXPECT_LE(RelativeError(unbroken.final_state.z, want.z), 2e-6) << d;
      const ForwardRun before = RunForward(Slice(problem, 0, 2 * chunk), first, dtype, {}, true);
      const ForwardRun after = RunForward(Slice(problem, 2 * chunk, t), rest, dtype, before.final_state, true);
      std::vector<float> y = before.y;
      y.insert(y.end(), after.y.begin(), after.y.end());
      EXPECT_TRUE(SameBits(y, unbroken.y));
      EXPECT_TRUE(SameBits(after.final_state.S, unbroken.final_state.S));
      EXPECT_TRUE(SameBits(after.final_state.z, unbroken.final_state.z));
    }
  }
}

TEST_F(CudaRetention, RowsOfNormAThousandInFp16_OverflowNowhere) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const int d : {16, 64, 128}) {
    const RetentionShape shape = {.heads_q = 4, .heads_kv = 2, .head_dim = d, .chunk = 64};
    RetentionProblem problem = RandomProblem(rng, shape, 300);
    const float factor = 1000 / std::sqrt(static_cast<float>(d));
    for (float& q : problem.Q) q *= factor;
    for (float& k : problem.K) k *= factor;
    Round(problem.Q, RetentionDtype::kFp16), Round(problem.K, RetentionDtype::kFp16);
    Round(problem.V, RetentionDtype::kFp16);
    const int64_t lengths[] = {0, 300};
    // A plain implementation overflows, so what fp16 may be off by is said in numbers.
    EXPECT_LE(RelativeError(RunForward(problem, lengths, RetentionDtype::kFp16).y, PackedReference(problem, lengths)),
              0x1p-10)
        << d;
  }
}

TEST_F(CudaRetention, GroupsOfQueryHeadsAndGates_AgreeWithTheDefinition) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const int d : {64, 128}) {
    for (const int group : {1, 3, 12, 16}) {
      for (const float lowest_gate : {0.0f, -1e-4f, -3.0f, -100.0f}) {
        const RetentionShape shape = {.heads_q = group, .heads_kv = 1, .head_dim = d, .chunk = 128};
        const RetentionProblem problem = RoundedProblem(rng, shape, 333, kBf16, lowest_gate);
        const int64_t lengths[] = {0, 333};
        ExpectBothPathsClose(problem, lengths, kBf16, Expect(problem, lengths, kBf16),
                             Name(shape, 333, kBf16) + " gate " + std::to_string(lowest_gate));
      }
    }
  }
}

TEST_F(CudaRetention, PackedSequences_DoNotSeeEachOther) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const int d : {64, 128}) {
    const RetentionShape shape = {.heads_q = 4, .heads_kv = 2, .head_dim = d, .chunk = 128};
    const int64_t lengths[] = {0, 1, 1, 130, 386, 389, 900};
    const RetentionProblem problem = RoundedProblem(rng, shape, 900, kBf16);
    ExpectBothPathsClose(problem, lengths, kBf16, Expect(problem, lengths, kBf16), Name(shape, 900, kBf16) + " packed");
  }
}

TEST_F(CudaRetention, SameInputsTwice_SameBits) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  const RetentionShape shape = {.heads_q = 8, .heads_kv = 4, .head_dim = 64, .chunk = 256};
  const RetentionProblem problem = RoundedProblem(rng, shape, 3000, kBf16);
  const int64_t lengths[] = {0, 1700, 3000};
  const ForwardRun first = RunForward(problem, lengths, kBf16, {}, true);
  for (int run = 0; run < 5; ++run) {
    const ForwardRun again = RunForward(problem, lengths, kBf16, {}, true);
    EXPECT_TRUE(SameBits(first.y, again.y));
    EXPECT_TRUE(SameBits(first.final_state.S, again.final_state.S));
    EXPECT_TRUE(SameBits(first.final_state.z, again.final_state.z));
  }
}

// The state of one sequence in double, canonical: S [Hk, D, d], z [Hk, D].
struct CanonicalState {
  std::vector<double> S, z;
};
CanonicalState StateReference(const RetentionProblem& problem) {
  const int d = problem.shape.head_dim, Hk = problem.shape.heads_kv;
  const int64_t D = int64_t{d} * (d + 1) / 2;
  CanonicalState state{std::vector<double>(Hk * D * d), std::vector<double>(Hk * D)};
  for (int h = 0; h < Hk; ++h) {
    double decay = 0;
    for (int64_t t = problem.t - 1; t >= 0; --t) {
      const float* k = problem.K.data() + (t * Hk + h) * d;
      const float* v = problem.V.data() + (t * Hk + h) * d;
      int64_t pair = h * D;
      for (int i = 0; i < d; ++i) {
        for (int j = i; j < d; ++j, ++pair) {
          const double phi = std::exp(decay) * (i == j ? 1 : 2) * k[i] * k[j];
          state.z[pair] += phi;
          for (int column = 0; column < d; ++column) state.S[pair * d + column] += phi * v[column];
        }
      }
      if (!problem.log_G.empty()) decay += problem.log_G[t * Hk + h];
    }
  }
  return state;
}

TEST_F(CudaRetention, FinalState_IsTheDefinitionsAndConvertsBothWays) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const int d : {64, 128}) {
    const RetentionShape shape = {.heads_q = 2, .heads_kv = 2, .head_dim = d, .chunk = 64};
    const RetentionProblem problem = RoundedProblem(rng, shape, 150, kBf16);
    const int64_t lengths[] = {0, 150};
    const DeviceState state = RunForward(problem, lengths, kBf16, {}, true).final_state;
    const CanonicalState want = StateReference(problem);
    const DeviceBuffer S = OnDevice(state.S), z = OnDevice(state.z);
    const PoisonedBuffer canonical_S(want.S.size() * 4), canonical_z(want.z.size() * 4);
    ASSERT_TRUE(ExportRetentionState(2, d, S.as<float>(), z.as<float>(), canonical_S.as<float>(),
                                     canonical_z.as<float>(), nullptr)
                    .ok());
    EXPECT_LE(RelativeError(Floats(canonical_S.Download()), want.S), 4e-3)
        << d;  // φ(k) and e^{…} v are rounded to bf16
    EXPECT_LE(RelativeError(Floats(canonical_z.Download()), want.z), 2e-5) << d;
    const PoisonedBuffer again_S(state.S.size() * 4), again_z(state.z.size() * 4);
    ASSERT_TRUE(ImportRetentionState(2, d, canonical_S.as<float>(), canonical_z.as<float>(), again_S.as<float>(),
                                     again_z.as<float>(), nullptr)
                    .ok());
    EXPECT_TRUE(SameBits(Floats(again_S.Download()), state.S));
    EXPECT_TRUE(SameBits(Floats(again_z.Download()), state.z));
  }
}

TEST_F(CudaRetention, GoingOnFromAState_IsNotStopping) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const int d : {64, 128}) {
    const RetentionShape shape = {.heads_q = 6, .heads_kv = 2, .head_dim = d, .chunk = 128};
    const RetentionProblem problem = RoundedProblem(rng, shape, 700, kBf16);
    const int64_t whole[] = {0, 700}, first[] = {0, 384}, rest[] = {0, 316};
    const ForwardRun before = RunForward(Slice(problem, 0, 384), first, kBf16, {}, true);
    const ForwardRun after = RunForward(Slice(problem, 384, 700), rest, kBf16, before.final_state, true);
    const ForwardRun unbroken = RunForward(problem, whole, kBf16, {}, true);
    std::vector<float> y = before.y;
    y.insert(y.end(), after.y.begin(), after.y.end());
    EXPECT_TRUE(SameBits(y, unbroken.y));
    EXPECT_TRUE(SameBits(after.final_state.S, unbroken.final_state.S));
    EXPECT_TRUE(SameBits(after.final_state.z, unbroken.final_state.z));
    ExpectClose(y, Expect(problem, whole, kBf16), Name(shape, 700, kBf16) + " in two calls");
  }
}

TEST_F(CudaRetention, QueriesThatNothingAnswers_GiveZero) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  const RetentionShape shape = {.heads_q = 1, .heads_kv = 1, .head_dim = 64, .chunk = 64};
  RetentionProblem problem = RoundedProblem(rng, shape, 200, kBf16);
  std::fill(problem.Q.begin(), problem.Q.end(), 0.0f);
  const int64_t lengths[] = {0, 200};
  for (const float y : RunForward(problem, lengths, kBf16).y) ASSERT_EQ(y, 0.0f);
}

TEST_F(CudaRetention, GoldenCases_Agree) {
  const auto cases = testing::FindGoldenCases(testing::GoldenKind::kOp);
  ASSERT_TRUE(cases.ok()) << cases.status();
  for (const auto& path : *cases) {
    SCOPED_TRACE(path.string());
    const absl::StatusOr<GoldenOp> golden = GoldenOp::Open(path);
    EXPECT_TRUE(golden.ok()) << golden.status();
    if (!golden.ok()) continue;
    std::printf("%s\n", path.filename().c_str());
    RetentionProblem problem = {.shape = golden->shape(),
                                .t = golden->batch() * golden->t(),
                                .Q = golden->Floats("Q"),
                                .K = golden->Floats("K"),
                                .V = golden->Floats("V"),
                                .log_G = golden->Floats("log_G")};
    const std::vector<int64_t> lengths = golden->cu_seqlens();
    const std::vector<float> Y = golden->Floats("Y");
    for (const RetentionDtype dtype : kTypes) {
      if (!HasKernel(problem.shape, dtype)) {
        std::printf("  no kernel: %s, degree %d, d %d\n", RetentionDtypeName(dtype), problem.shape.degree,
                    problem.shape.head_dim);
        continue;
      }
      Expected want{.y = std::vector<double>(Y.begin(), Y.end()), .dtype = dtype};
      want.plain_error = RelativeError(PlainImplementation(problem, lengths, dtype), want.y);
      for (const int64_t chunk : {int64_t{16}, int64_t{64}, int64_t{1024}, golden->own_chunk()}) {
        if (chunk == 0) continue;
        problem.shape.chunk = chunk;
        ExpectBothPathsClose(problem, lengths, dtype, want, Name(problem.shape, golden->t(), dtype));
      }
    }
  }
}

}  // namespace
}  // namespace statehouse::kernels
