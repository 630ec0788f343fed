// The golden operator cases: outputs of the float64 definition.
#include <cstdlib>
#include <cstring>

#include "models/safetensors.h"
#include "tests/kernels/retention_fixture.h"
#include "tests/support/golden.h"

namespace statehouse::kernels {
namespace {

constexpr double kTolerance = 2e-5;

struct GoldenCase {
  std::vector<RetentionProblem> problems;  // one per batch entry
  std::vector<std::vector<float>> Y;
  int64_t own_chunk = 0;
};

std::vector<float> Floats(const Safetensors& file, const std::string& name, int64_t first, int64_t count) {
  const auto found = file.tensors().find(name);
  if (found == file.tensors().end()) return {};
  EXPECT_EQ(found->second.dtype, "F32") << name;
  EXPECT_LE((first + count) * 4, found->second.num_bytes) << name;
  std::vector<float> out(count);
  std::memcpy(out.data(), found->second.data + first * 4, count * 4);
  return out;
}

GoldenCase Load(const Safetensors& file) {
  const auto number = [&](const char* name) { return std::strtod(file.metadata().at(name).c_str(), nullptr); };
  RetentionShape shape;
  shape.heads_q = static_cast<int>(number("heads_q"));
  shape.heads_kv = static_cast<int>(number("heads_kv"));
  shape.head_dim = static_cast<int>(number("head_dim"));
  shape.degree = static_cast<int>(number("deg"));
  shape.scale = static_cast<float>(number("scale"));
  const int64_t t = static_cast<int64_t>(number("t"));
  const int64_t q = t * shape.heads_q * shape.head_dim, kv = t * shape.heads_kv * shape.head_dim;
  GoldenCase golden;
  golden.own_chunk = static_cast<int64_t>(number("chunk_size"));
  for (int64_t b = 0; b < static_cast<int64_t>(number("b")); ++b) {
    golden.problems.push_back({.shape = shape,
                               .t = t,
                               .Q = Floats(file, "Q", b * q, q),
                               .K = Floats(file, "K", b * kv, kv),
                               .V = Floats(file, "V", b * kv, kv),
                               .log_G = Floats(file, "log_G", b * t * shape.heads_kv, t * shape.heads_kv)});
    golden.Y.push_back(Floats(file, "Y", b * q, q));
  }
  return golden;
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
    const absl::StatusOr<Safetensors> file = Safetensors::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    const GoldenCase golden = Load(*file);
    for (size_t b = 0; b < golden.problems.size(); ++b) {
      const RetentionProblem& problem = golden.problems[b];
      const std::vector<float>& want = golden.Y[b];
      const bool has_state = problem.shape.degree == 2 || problem.shape.head_dim <= 32;
      ExpectY(problem, want, 64, kNeverSwitch, problem.t, "quadratic");
      if (!has_state) continue;
      std::vector<int64_t> chunks = {16, 64};
      if (golden.own_chunk > 0 && golden.own_chunk != 16 && golden.own_chunk != 64) chunks.push_back(golden.own_chunk);
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
