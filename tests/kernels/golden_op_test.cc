// The golden operator cases: outputs of the float64 definition.
#include <cstdio>

#include "tests/kernels/golden_op.h"
#include "tests/kernels/retention_fixture.h"
#include "tests/support/golden.h"

namespace statehouse::kernels {
namespace {

constexpr double kTolerance = 2e-5;

RetentionProblem BatchEntry(const GoldenOp& golden, int64_t entry) {
  return {.shape = golden.shape(),
          .t = golden.t(),
          .Q = golden.Floats("Q", entry),
          .K = golden.Floats("K", entry),
          .V = golden.Floats("V", entry),
          .log_G = golden.Floats("log_G", entry)};
}

void ExpectY(RetentionProblem problem, const std::vector<float>& want, int64_t chunk, int64_t switch_over,
             int64_t piece, const char* form) {
  problem.shape.chunk = chunk;
  problem.shape.switch_over = switch_over;
  problem.shape.max_tail_tokens = switch_over == kNeverSwitch ? problem.t : 0;
  ThreadPool pool(0);
  const double error = RelativeError(RunInPieces(problem, piece, pool), want);
  std::printf("  %-22s C %4lld: relative error %.2e\n", form, static_cast<long long>(chunk), error);
  EXPECT_LE(error, kTolerance) << form << ", C " << chunk;
}

TEST(PowerRetention, GoldenCases_AgreeInEveryForm) {
  const auto cases = testing::FindGoldenCases(testing::GoldenKind::kOp);
  ASSERT_TRUE(cases.ok()) << cases.status();
  for (const auto& path : *cases) {
    SCOPED_TRACE(path.string());
    std::printf("%s\n", path.filename().c_str());
    const absl::StatusOr<GoldenOp> golden = GoldenOp::Open(path);
    EXPECT_TRUE(golden.ok()) << golden.status();
    if (!golden.ok()) continue;
    for (int64_t entry = 0; entry < golden->batch(); ++entry) {
      const RetentionProblem problem = BatchEntry(*golden, entry);
      const std::vector<float> want = golden->Floats("Y", entry);
      const bool has_state = problem.shape.degree == 2 || problem.shape.head_dim <= 32;
      ExpectY(problem, want, 64, kNeverSwitch, problem.t, "quadratic");
      if (!has_state) continue;
      std::vector<int64_t> chunks = {16, 64};
      const int64_t own_chunk = golden->own_chunk();
      if (own_chunk > 0 && own_chunk != 16 && own_chunk != 64) chunks.push_back(own_chunk);
      for (const int64_t chunk : chunks) {
        ExpectY(problem, want, chunk, 0, problem.t, "chunked");
        ExpectY(problem, want, chunk, kSwitchOverAuto, problem.t, "chunked, switch-over");
      }
      // Chunks of one token: every token but the last is in the state, as in the recurrent form.
      ExpectY(problem, want, 1, 0, 1, "recurrent");
    }
  }
}

}  // namespace
}  // namespace statehouse::kernels
