// The reference of the gradients against central differences of the forward pass, and against the golden cases.
#include <algorithm>
#include <cstdio>

#include "kernels/power_retention/backward_ref.h"
#include "tests/kernels/golden_op.h"
#include "tests/kernels/kernel_test_support.h"
#include "tests/kernels/retention_backward_plain.h"
#include "tests/support/golden.h"

namespace statehouse::kernels {
namespace {

std::vector<double> RandomDoubles(std::mt19937& rng, int64_t size, double deviation = 1) {
  std::normal_distribution<double> normal(0.0, deviation);
  std::vector<double> out(size);
  for (double& x : out) x = normal(rng);
  return out;
}

// What flows back into a pass.
struct Upstream {
  std::vector<double> dY, dS, dz;
};

double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < b.size(); ++i) sum += a[i] * b[i];
  return sum;
}

double Objective(const RetentionDoubles& inputs, const Upstream& upstream) {
  const RetentionDoubleOutputs out = PowerRetentionForwardRef(inputs);
  return Dot(out.y, upstream.dY) + Dot(out.S, upstream.dS) + Dot(out.z, upstream.dz);
}

// Compares some elements of one gradient with central differences by `tensor`, a member of `inputs`.
void ExpectDerivatives(RetentionDoubles& inputs, const Upstream& upstream, std::vector<double>& tensor,
                       const std::vector<double>& gradient, std::mt19937& rng, const char* name) {
  ASSERT_EQ(tensor.size(), gradient.size()) << name;
  double largest = 0;
  for (const double x : gradient) largest = std::max(largest, std::fabs(x));
  EXPECT_GT(largest, 0) << name;
  for (int sample = 0; sample < 12; ++sample) {
    const size_t at = rng() % tensor.size();
    const double value = tensor[at], step = 1e-5;
    const auto objective = [&](double moved_by) {
      tensor[at] = value + moved_by;
      const double result = Objective(inputs, upstream);
      tensor[at] = value;
      return result;
    };
    const double above = objective(step);
    const double narrow = (above - objective(-step)) / (2 * step);
    const double wide = (objective(2 * step) - objective(-2 * step)) / (4 * step);
    const double difference = narrow + (narrow - wide) / 3;  // the step's square cancels
    // What is left: higher powers of the step, and the objective's own rounding.
    const double tolerance = 1e-6 * (largest + std::fabs(gradient[at])) + 0.02 * std::fabs(narrow - wide) +
                             1e-13 * (1 + std::fabs(above)) / step;
    EXPECT_NEAR(gradient[at], difference, tolerance) << name << "[" << at << "]";
  }
}

struct Case {
  const char* name;
  int64_t t;
  int heads_q, heads_kv, d, degree;
  double lowest_gate;
  bool has_state;
};

TEST(RetentionBackwardRef, EveryInput_AgreesWithCentralDifferences) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const Case& it :
       {Case{"one row", 1, 2, 1, 6, 2, -1, true}, Case{"no state", 13, 4, 2, 5, 2, -0.5, false},
        Case{"state", 12, 6, 2, 7, 2, -0.5, true}, Case{"closed gates", 10, 1, 1, 8, 2, -20, true},
        Case{"open gates", 24, 3, 1, 4, 2, -1e-3, true}, Case{"degree 4", 9, 2, 1, 4, 4, -0.5, true}}) {
    SCOPED_TRACE(it.name);
    RetentionDoubles in = {.t = it.t,
                           .heads_q = it.heads_q,
                           .heads_kv = it.heads_kv,
                           .head_dim = it.d,
                           .degree = it.degree,
                           .scale = 1 / std::sqrt(it.d)};
    in.V = RandomDoubles(rng, it.t * it.heads_kv * it.d);
    for (const float gate : Uniforms(rng, it.t * it.heads_kv, static_cast<float>(it.lowest_gate), 0))
      in.log_G.push_back(gate);
    do {  // a denominator near 0 has no derivative that differences find
      in.Q = RandomDoubles(rng, it.t * it.heads_q * it.d);
      in.K = RandomDoubles(rng, it.t * it.heads_kv * it.d);
    } while (std::ranges::min(PowerRetentionForwardRef(in).denominator) < 0.05);
    Upstream upstream{RandomDoubles(rng, in.Q.size()), {}, {}};
    RetentionDoubles none = in;
    none.t = 0;
    const RetentionDoubleOutputs sizes = PowerRetentionForwardRef(none);
    if (it.has_state) {
      // The state of rows that came before: its normaliser weighs no query negatively.
      RetentionDoubles before = in;
      before.t = 5;
      before.K = RandomDoubles(rng, 5 * it.heads_kv * it.d), before.V = RandomDoubles(rng, 5 * it.heads_kv * it.d);
      before.Q.assign(5 * it.heads_q * it.d, 0.0), before.log_G.assign(5 * it.heads_kv, 0.0);
      const RetentionDoubleOutputs state = PowerRetentionForwardRef(before);
      in.S = state.S, in.z = state.z;
      upstream.dS = RandomDoubles(rng, sizes.S.size(), 0.1), upstream.dz = RandomDoubles(rng, sizes.z.size(), 0.1);
    }
    const RetentionGradients got = PowerRetentionBackwardRef(in, upstream.dY, upstream.dS, upstream.dz);
    if (!it.has_state) in.S = sizes.S, in.z = sizes.z;  // zero, and differed by
    ExpectDerivatives(in, upstream, in.Q, got.dQ, rng, "dQ");
    ExpectDerivatives(in, upstream, in.K, got.dK, rng, "dK");
    ExpectDerivatives(in, upstream, in.V, got.dV, rng, "dV");
    ExpectDerivatives(in, upstream, in.log_G, got.dlog_G, rng, "dlog_G");
    ExpectDerivatives(in, upstream, in.S, got.dS, rng, "dS");
    ExpectDerivatives(in, upstream, in.z, got.dz, rng, "dz");
  }
}

// The form that the GPU's kernels compute, without rounding.
TEST(RetentionBackwardRef, ChunksAndStates_GiveTheSameGradients) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const bool has_state : {false, true}) {
    RetentionDoubles in = {.t = 23, .heads_q = 6, .heads_kv = 2, .head_dim = 9, .scale = 0.3};
    in.Q = RandomDoubles(rng, in.t * 6 * 9), in.K = RandomDoubles(rng, in.t * 2 * 9);
    in.V = RandomDoubles(rng, in.t * 2 * 9);
    for (const float gate : Uniforms(rng, in.t * 2, -0.7f, 0)) in.log_G.push_back(gate);
    const std::vector<double> dY = RandomDoubles(rng, in.Q.size());
    std::vector<double> dS, dz;
    if (has_state) {
      RetentionDoubles before = in;
      const RetentionDoubleOutputs state = PowerRetentionForwardRef(before);
      in.S = state.S, in.z = state.z;
      dS = RandomDoubles(rng, state.S.size()), dz = RandomDoubles(rng, state.z.size());
    }
    const RetentionDoubleOutputs forward = PowerRetentionForwardRef(in);
    const RetentionGradients want = PowerRetentionBackwardRef(in, dY, dS, dz);
    for (const int64_t chunk : {1, 4, 5, 22, 23, 100}) {
      SCOPED_TRACE(chunk);
      const PlainOptions options = {.chunk = chunk};
      const RetentionGradients got =
          PlainBackward<double>(in, forward.y, forward.denominator, dY, dS, dz, options).gradients();
      const auto expect = [&](const char* name, const std::vector<double>& a, const std::vector<double>& b) {
        ASSERT_EQ(a.size(), b.size()) << name;
        double error = 0, norm = 0;
        for (size_t i = 0; i < a.size(); ++i) error += (a[i] - b[i]) * (a[i] - b[i]), norm += b[i] * b[i];
        EXPECT_LE(std::sqrt(error / norm), 1e-10) << name;
      };
      expect("dQ", got.dQ, want.dQ), expect("dK", got.dK, want.dK), expect("dV", got.dV, want.dV);
      expect("dlog_G", got.dlog_G, want.dlog_G);
      if (has_state || in.t > chunk) expect("dS", got.dS, want.dS), expect("dz", got.dz, want.dz);
    }
  }
}

TEST(RetentionBackwardRef, QueryThatNothingAnswers_PassesNothingBack) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  RetentionDoubles in = {.t = 4, .heads_q = 1, .heads_kv = 1, .head_dim = 4, .scale = 0.5};
  in.Q.assign(16, 0.0);
  in.K = RandomDoubles(rng, 16), in.V = RandomDoubles(rng, 16);
  const RetentionGradients got = PowerRetentionBackwardRef(in, RandomDoubles(rng, 16), {}, {});
  for (const std::vector<double>* gradient : {&got.dQ, &got.dK, &got.dV, &got.dlog_G, &got.dS, &got.dz}) {
    for (const double x : *gradient) ASSERT_EQ(x, 0.0);
  }
}

TEST(RetentionBackwardRef, GoldenCases_Agree) {
  const auto cases = testing::FindGoldenCases(testing::GoldenKind::kOp);
  ASSERT_TRUE(cases.ok()) << cases.status();
  for (const auto& path : *cases) {
    SCOPED_TRACE(path.string());
    const absl::StatusOr<GoldenOp> golden = GoldenOp::Open(path);
    EXPECT_TRUE(golden.ok()) << golden.status();
    if (!golden.ok()) continue;
    const RetentionShape shape = golden->shape();
    if (shape.degree != 2 && shape.head_dim > 16) {
      std::printf("  %-28s not run: D is %lld, minutes in plain loops\n", path.filename().c_str(),
                  static_cast<long long>(ExpandedSize(shape.head_dim, shape.degree)));
      continue;
    }
    const auto doubles = [&](const char* name, int64_t entry) {
      const std::vector<float> values = golden->Floats(name, entry);
      return std::vector<double>(values.begin(), values.end());
    };
    for (int64_t b = 0; b < golden->batch(); ++b) {
      RetentionDoubles in = {.t = golden->t(),
                             .heads_q = shape.heads_q,
                             .heads_kv = shape.heads_kv,
                             .head_dim = shape.head_dim,
                             .degree = shape.degree,
                             .scale = golden->scale()};
      in.Q = doubles("Q", b), in.K = doubles("K", b), in.V = doubles("V", b), in.log_G = doubles("log_G", b);
      const RetentionGradients got = PowerRetentionBackwardRef(in, doubles("dY", b), {}, {});
      const auto expect = [&](const char* name, const std::vector<double>& gradient) {
        const std::vector<double> want = doubles(name, b);
        if (want.empty()) return;  // no gates
        ASSERT_EQ(gradient.size(), want.size());
        const double error = RelativeError(std::vector<float>(gradient.begin(), gradient.end()), want);
        std::printf("  %-28s %-6s relative error %.2e\n", path.filename().c_str(), name, error);
        EXPECT_LE(error, 2e-6) << name;
      };
      expect("dQ", got.dQ), expect("dK", got.dK), expect("dV", got.dV), expect("dlog_G", got.dlog_G);
    }
  }
}

}  // namespace
}  // namespace statehouse::kernels
