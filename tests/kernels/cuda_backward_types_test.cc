// The gradients of power retention on the GPU in fp16 and float32, of degree 4, and of shapes drawn at random. Skips
// where there is no GPU.
#include "tests/kernels/cuda_backward_expect.h"

namespace statehouse::kernels {
namespace {

constexpr RetentionDtype kTypes[] = {RetentionDtype::kBf16, RetentionDtype::kFp16, RetentionDtype::kFloat32};

struct TypeAndSize {
  RetentionDtype dtype;
  int head_dim;
};
std::string TestName(const ::testing::TestParamInfo<TypeAndSize>& info) {
  return std::string(RetentionDtypeName(info.param.dtype)) + "_d" + std::to_string(info.param.head_dim);
}
constexpr TypeAndSize kWide[] = {{RetentionDtype::kFp16, 16},    {RetentionDtype::kFp16, 32},
                                 {RetentionDtype::kFp16, 64},    {RetentionDtype::kFp16, 128},
                                 {RetentionDtype::kFloat32, 16}, {RetentionDtype::kFloat32, 32},
                                 {RetentionDtype::kFloat32, 64}, {RetentionDtype::kFloat32, 128}};

class CudaBackwardTypes : public CudaBackward, public ::testing::WithParamInterface<TypeAndSize> {
 protected:
  void SetUp() override {
    CudaBackward::SetUp();
    if (!IsSkipped() && !HasBackwardKernel(GetParam().head_dim, GetParam().dtype)) GTEST_SKIP() << "not built";
  }
};

TEST_P(CudaBackwardTypes, LengthsAroundChunksAndTiles_AgreeWithExactGradients) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  const auto [dtype, d] = GetParam();
  const RetentionShape shape = {.heads_q = d == 128 ? 2 : 4, .heads_kv = d == 128 ? 1 : 2, .head_dim = d};
  for (const int64_t t : {1, 31, 33, 65, 128, 129, 200}) {
    const BackwardCase it = MakeBackwardCase(RandomBackward(rng, shape, {0, t}, -0.5f, dtype), dtype);
    for (const int64_t chunk : {64, 100, 1024}) {
      if (chunk == 100 && t != 200) continue;
      if (chunk < 1024 && t <= chunk / 2) continue;
      ExpectBothPaths(it, chunk, Name(it.problem, chunk, dtype));
    }
  }
}

TEST_P(CudaBackwardTypes, StatesOfPackedSequences_AgreeWithExactGradients) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  const auto [dtype, d] = GetParam();
  const RetentionShape shape = {.heads_q = 2, .heads_kv = 1, .head_dim = d};
  BackwardProblem problem = RandomBackward(rng, shape, {0, 1, 1, 70, 210}, -0.1f, dtype);
  AddStates(rng, problem);
  const BackwardCase both = MakeBackwardCase(problem, dtype);
  ExpectBothPaths(both, 64, Name(both.problem, 64, dtype) + " states");
  BackwardProblem part = problem;
  part.dS.clear(), part.dz.clear();
  const BackwardCase initial = MakeBackwardCase(part, dtype);
  ExpectBothPaths(initial, 128, Name(initial.problem, 128, dtype) + " initial state");
  part = problem;
  part.S.clear(), part.z.clear();
  const BackwardCase final = MakeBackwardCase(part, dtype);
  ExpectBothPaths(final, 256, Name(final.problem, 256, dtype) + " final state");
}

TEST_P(CudaBackwardTypes, GroupsAndGates_AgreeWithExactGradients) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  const auto [dtype, d] = GetParam();
  for (const int group : {1, 5, 16}) {
    for (const float lowest_gate : {0.0f, -1e-3f, -3.0f, -100.0f}) {
      const RetentionShape shape = {.heads_q = group, .heads_kv = 1, .head_dim = d};
      const BackwardCase it =
          MakeBackwardCase(RandomBackward(rng, shape, {0, d < 128 ? 150 : 75}, lowest_gate, dtype), dtype);
      for (const int64_t chunk : {64, 256}) {
        ExpectBothPaths(it, chunk, Name(it.problem, chunk, dtype) + " gate " + std::to_string(lowest_gate),
                        lowest_gate < -10 ? FewKeysFloor(dtype) : 0);
      }
    }
  }
}

TEST_P(CudaBackwardTypes, SameInputsTwice_SameBits) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  const auto [dtype, d] = GetParam();
  const RetentionShape shape = {.heads_q = 6, .heads_kv = 2, .head_dim = d};
  BackwardCase it{RandomBackward(rng, shape, {0, 700, 1100}, -0.5f, dtype), dtype, {}, {}, {}};
  const ForwardRun forward = RunForward(it.problem.forward, it.problem.cu_seqlens, dtype);
  it.y = forward.y, it.denominator = forward.denominator;
  const BackwardRun first = RunBackward(it, 256, RetentionPath::kBest, true);
  for (int turn = 0; turn < 3; ++turn) {
    const BackwardRun again = RunBackward(it, 256, RetentionPath::kBest, true);
    EXPECT_TRUE(SameBits(first.dQ, again.dQ) && SameBits(first.dK, again.dK) && SameBits(first.dV, again.dV));
    EXPECT_TRUE(SameBits(first.dlog_G, again.dlog_G));
    EXPECT_TRUE(SameBits(first.dinitial.S, again.dinitial.S) && SameBits(first.dinitial.z, again.dinitial.z));
  }
}
INSTANTIATE_TEST_SUITE_P(Types, CudaBackwardTypes, ::testing::ValuesIn(kWide), TestName);

TEST_F(CudaBackward, RowsOfNormAThousandInFp16_OverflowNowhere) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const int d : {16, 64, 128}) {
    if (!HasBackwardKernel(d, RetentionDtype::kFp16)) continue;
    const RetentionShape shape = {.heads_q = 4, .heads_kv = 2, .head_dim = d};
    BackwardProblem problem = RandomBackward(rng, shape, {0, 150}, -0.5f, RetentionDtype::kFp16);
    const float factor = 1000 / std::sqrt(static_cast<float>(d));
    for (std::vector<float>* rows : {&problem.forward.Q, &problem.forward.K}) {
      for (float& x : *rows) x *= factor;
      Round(*rows, RetentionDtype::kFp16);
    }
    // Gradients by such rows are a thousand times smaller; they are to be fp16 numbers with all their bits.
    for (float& x : problem.dY) x *= 64;
    const BackwardCase it = MakeBackwardCase(problem, RetentionDtype::kFp16);
    for (const int64_t chunk : {64, 256}) {
      const BackwardRun run = RunBackward(it, chunk, RetentionPath::kBest);
      // A plain program overflows, so what fp16 may be off by is said in numbers.
      EXPECT_LE(RelativeError(run.dQ, it.exact.dQ), 0x1p-9) << d << " C " << chunk;
      EXPECT_LE(RelativeError(run.dK, it.exact.dK), 0x1p-9) << d << " C " << chunk;
      EXPECT_LE(RelativeError(run.dV, it.exact.dV), 0x1p-9) << d << " C " << chunk;
      EXPECT_LE(RelativeError(run.dlog_G, it.exact.dlog_G), 0x1p-9) << d << " C " << chunk;
    }
  }
}

TEST_F(CudaBackward, OfDegreeFour_AgreesWithExactGradients) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const RetentionDtype dtype : kTypes) {
    for (const int d : {16, 32, 64, 128}) {
      if (!HasBackwardKernel(d, dtype, 4)) continue;
      for (const float lowest_gate : {0.0f, -0.5f}) {
        const RetentionShape shape = {.heads_q = 6, .heads_kv = 2, .head_dim = d, .degree = 4};
        const BackwardCase it =
            MakeBackwardCase(RandomBackward(rng, shape, {0, 1, 130, 301}, lowest_gate, dtype), dtype);
        ExpectBothPaths(it, 1024, Name(it.problem, 1024, dtype) + " degree 4",
                        dtype == RetentionDtype::kFloat32 ? 5e-6 : FewKeysFloor(dtype));
      }
    }
  }
}

// Against the reference through states in double: sums over products of four numbers cancel to 1 / d² of their parts,
// and float32 loses as much.
void ExpectStatesOfDegreeFour(const BackwardCase& it, int64_t chunk, bool keeps_states) {
  const BackwardRun run = RunBackward(it, chunk, RetentionPath::kBest, false, keeps_states);
  const double most = it.dtype == RetentionDtype::kBf16 ? 0x1p-6 : it.dtype == RetentionDtype::kFp16 ? 0x1p-9 : 5e-5;
  const auto expect = [&](const std::vector<float>& got, const std::vector<double>& want, const char* name) {
    const double error = RelativeError(got, want);
    std::printf("  %s degree 4 with states%s, %s: error %.2e\n", Name(it.problem, chunk, it.dtype).c_str(),
                keeps_states ? ", kept" : "", name, error);
    ASSERT_EQ(got.size(), want.size()) << name;
    EXPECT_LE(error, most) << name;
  };
  expect(run.dQ, it.exact.dQ, "dQ"), expect(run.dK, it.exact.dK, "dK"), expect(run.dV, it.exact.dV, "dV");
  expect(run.dlog_G, it.exact.dlog_G, "dlog_G");
  if (!run.dinitial.S.empty()) expect(run.dinitial.S, it.exact.dS, "dS"), expect(run.dinitial.z, it.exact.dz, "dz");
}

TEST_F(CudaBackward, StatesOfDegreeFour_AgreeWithExactGradients) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  bool is_built = false;
  for (const RetentionDtype dtype : kTypes) {
    for (const int d : {16, 32}) {
      if (!HasBackwardKernel(d, dtype, 4)) continue;
      is_built = true;
      for (const bool has_states : {false, true}) {
        const RetentionShape shape = {
            .heads_q = d == 16 ? 4 : 2, .heads_kv = d == 16 ? 2 : 1, .head_dim = d, .degree = 4};
        const std::vector<int64_t> lengths =
            d == 16 ? std::vector<int64_t>{0, 1, 80, 230} : std::vector<int64_t>{0, 20, 61};
        BackwardCase it = {RandomBackward(rng, shape, lengths, -0.1f, dtype), dtype, {}, {}, {}};
        if (has_states) AddStates(rng, it.problem);
        for (int64_t s = 0; s < it.problem.num_sequences(); ++s) {
          const RetentionDoubles in = SequenceDoubles(it.problem, s);
          const auto part = [&](const auto& all, int64_t begin, int64_t end) {
            return std::vector<double>(all.begin() + begin, all.begin() + end);
          };
          const int64_t row = int64_t{shape.heads_q} * d, states = it.problem.dS.size() / it.problem.num_sequences(),
                        zs = it.problem.dz.size() / it.problem.num_sequences();
          const RetentionDoubleOutputs forward = PowerRetentionForwardRef(in);
          for (const double x : forward.y) it.y.push_back(Rounded(static_cast<float>(x), dtype));
          it.denominator.insert(it.denominator.end(), forward.denominator.begin(), forward.denominator.end());
          Append(PowerRetentionBackwardRef(in, part(it.problem.dY, lengths[s] * row, lengths[s + 1] * row),
                                           part(it.problem.dS, s * states, (s + 1) * states),
                                           part(it.problem.dz, s * zs, (s + 1) * zs)),
                 it.exact);
        }
        for (const bool keeps_states : {false, true}) ExpectStatesOfDegreeFour(it, d == 16 ? 64 : 16, keeps_states);
      }
    }
  }
  if (!is_built) GTEST_SKIP() << "this build has none of them: -DSTATEHOUSE_CUDA_INSTANCES=all";
}

TEST_F(CudaBackward, StatesOfDegreeFourAndLargeHeads_AreUnimplemented) {
  const int64_t lengths[] = {0, 8};
  const auto plan = CudaRetentionPlan::Make({.heads_q = 1, .heads_kv = 1, .head_dim = 64, .degree = 4}, lengths);
  ASSERT_TRUE(plan.ok()) << plan.status();
  float anything = 0;
  CudaRetentionBackwardArgs args = {.initial_state = &anything, .initial_normalizer = &anything};
  EXPECT_EQ(CudaRetentionBackward(*plan, args, nullptr).code(), absl::StatusCode::kUnimplemented);
}

TEST_F(CudaBackward, ShapesDrawnAtRandom_AgreeWithExactGradients) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  const auto draw = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng); };
  for (int turn = 0; turn < 30; ++turn) {
    const RetentionDtype dtype = kTypes[turn % 3];
    const int d = 16 << draw(0, 3), heads_kv = draw(1, 3), group = draw(1, 16);
    if (!HasBackwardKernel(d, dtype)) continue;
    const RetentionShape shape = {.heads_q = heads_kv * group, .heads_kv = heads_kv, .head_dim = d};
    const int64_t rows = std::max(20, 40'000 / (d * d / 16 * heads_kv * group));  // so that the yardsticks stay cheap
    const int64_t first = draw(0, static_cast<int>(rows)), all = first + draw(1, static_cast<int>(rows));
    const float gates[] = {0.0f, -1e-3f, -0.5f, -2.0f};
    BackwardProblem problem = RandomBackward(rng, shape, {0, first, all}, gates[draw(0, 3)], dtype);
    const bool has_states = draw(0, 1) == 1;
    if (has_states) AddStates(rng, problem);
    const int64_t chunk = draw(16, 200);
    const BackwardCase it = MakeBackwardCase(problem, dtype);
    ExpectBothPaths(it, chunk, Name(it.problem, chunk, dtype) + (has_states ? " states" : ""));
  }
}

}  // namespace
}  // namespace statehouse::kernels
