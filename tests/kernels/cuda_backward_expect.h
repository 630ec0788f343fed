// Random problems for the gradients of power retention on the GPU, and what their errors may be.
#pragma once

#include <string>
#include <vector>

#include "tests/kernels/cuda_backward_fixture.h"
#include "tests/kernels/error_ratios.h"
#include "tests/support/gpu.h"

namespace statehouse::kernels {

// What float32 sums alone may come to, where rounding leaves the plain program nothing.
inline constexpr double kFloor = 2e-5;
inline constexpr double kFloatFloor = 1e-6;
// Where few keys have weight, s = q·k near 0 loses its digits to rounding, and s^p is divided by little else than
// itself: what a program is off by in such a row, which may be more than in all others, is drawn by lot.
inline double FewKeysFloor(RetentionDtype dtype) { return dtype == RetentionDtype::kFloat32 ? 2e-5 : 0x1p-12; }

class CudaBackward : public ::testing::Test {
 protected:
  void SetUp() override { testing::HasGpu(); }
};

inline bool HasBackwardKernel(int head_dim, RetentionDtype dtype = RetentionDtype::kBf16, int degree = 2) {
  const CudaRetentionShape shape = {
      .heads_q = 1, .heads_kv = 1, .head_dim = head_dim, .degree = degree, .dtype = dtype};
  const int64_t lengths[] = {0, 1};
  const absl::Status status = CheckRetentionBackwardShape(shape);
  if (degree == 4 && dtype == RetentionDtype::kBf16 && !status.ok()) {  // not in every build
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
    return false;
  }
  if (!IsBuilt(status, dtype, head_dim)) return false;
  return IsBuilt(CudaRetentionPlan::Make(shape, lengths).status(), dtype, head_dim);
}

// ||got - want||, and ||want|| with what else the elements consist of: sums that cancel to less have their errors.
inline void ExpectClose(const std::vector<float>& got, const std::vector<double>& plain,
                        const std::vector<double>& exact, double scale, RetentionDtype dtype, const std::string& form,
                        const std::string& what, double floor, double most = kErrorRatio) {
  ASSERT_EQ(got.size(), exact.size()) << what;
  double error = 0, plain_error = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - exact[i]) * (got[i] - exact[i]);
    plain_error += (plain[i] - exact[i]) * (plain[i] - exact[i]);
    norm += exact[i] * exact[i];
  }
  error = std::sqrt(error), plain_error = std::sqrt(plain_error), norm = std::max(std::sqrt(norm), scale);
  const double yardstick =
      std::max(plain_error, std::max(floor, dtype == RetentionDtype::kFloat32 ? kFloatFloor : kFloor) * norm);
  const double ratio = yardstick > 0 ? error / yardstick : error > 0 ? HUGE_VAL : 0;
  std::printf("  %-58s error %.2e, plain %.2e, ratio %.2f\n", what.c_str(), error / norm, plain_error / norm, ratio);
  ErrorRatios::Get().Note(dtype, form, ratio);
  EXPECT_LE(error, most * yardstick) << what;  // not a NaN either
}

inline void ExpectGradients(const BackwardCase& it, int64_t chunk, const RetentionGradients& plain, RetentionPath path,
                            const std::string& what, bool wants_dinitial = false, double floor = 0) {
  const BackwardRun run = RunBackward(it, chunk, path, wants_dinitial);
  const RetentionShape& shape = it.problem.forward.shape;
  const int d = shape.head_dim;
  // A row of one key has no gradient by q, k or its gate; what float32 leaves of it is as large as its parts.
  double scale = 0;
  for (size_t row = 0; row < it.denominator.size(); ++row) {
    double square = 0;
    for (int i = 0; i < d; ++i) square += it.problem.dY[row * d + i] * it.problem.dY[row * d + i];
    if (it.denominator[row] > 0) scale += square / std::pow(it.denominator[row], 2.0 / shape.degree);
  }
  scale = std::sqrt(scale);
  const bool has_states = !run.dinitial.S.empty() || it.problem.forward.t > chunk;
  const std::string kind = shape.degree == 4 ? "gradients of degree 4"
                           : has_states      ? "gradients with states"
                                             : "gradients of pairs";
  const std::string form = kind + ", d " + std::to_string(d) + ", ";  // one bad head size must not drown in the others
  // Rounding to 16 bits is felt in every element; the rest of float32's errors, and what gates sum up, is decided by
  // few.
  const auto expect = [&](const std::vector<float>& got, const std::vector<double>& of_plain,
                          const std::vector<double>& exact, double parts, const std::string& name) {
    const bool is_lucky =
        it.dtype == RetentionDtype::kFloat32 || (it.dtype == RetentionDtype::kFp16 && name == "dlog_G");
    ExpectClose(got, of_plain, exact, parts, it.dtype, form + name, what + " " + name, floor,
                is_lucky ? kOneCaseRatio : kErrorRatio);
  };
  expect(run.dQ, plain.dQ, it.exact.dQ, scale, "dQ");
  expect(run.dK, plain.dK, it.exact.dK, scale, "dK");
  expect(run.dV, plain.dV, it.exact.dV, 0, "dV");
  expect(run.dlog_G, plain.dlog_G, it.exact.dlog_G, 0.1, "dlog_G");
  if (it.exact.dS.empty() || run.dinitial.S.empty()) return;
  expect(GradientFromDevice(run.dinitial.S, d, d), plain.dS, it.exact.dS, 0, "dS");
  expect(GradientFromDevice(run.dinitial.z, d, 1), plain.dz, it.exact.dz, 0, "dz");
}

// With the best instructions and, where they differ, with those of sm_80.
inline void ExpectBothPaths(const BackwardCase& it, int64_t chunk, const std::string& what, double floor = 0) {
  const RetentionGradients plain = Plain(it.problem, it.y, it.denominator, it.dtype, chunk, false);
  ExpectGradients(it, chunk, plain, RetentionPath::kBest, what, false, floor);
  const RetentionShape& shape = it.problem.forward.shape;
  if (shape.head_dim < 64 || it.dtype != RetentionDtype::kBf16 || shape.degree != 2) return;  // one path only
  ExpectGradients(it, chunk, plain, RetentionPath::kMmaSync, what + " mma.sync", false, floor);
}

inline BackwardProblem RandomBackward(std::mt19937& rng, const RetentionShape& shape, std::vector<int64_t> cu_seqlens,
                                      float lowest_gate = -0.5f, RetentionDtype dtype = RetentionDtype::kBf16) {
  BackwardProblem out;
  out.forward = RandomProblem(rng, shape, cu_seqlens.back(), lowest_gate);
  out.dY = Normals(rng, out.forward.Q.size());
  for (std::vector<float>* values : {&out.forward.Q, &out.forward.K, &out.forward.V, &out.dY}) Round(*values, dtype);
  out.cu_seqlens = std::move(cu_seqlens);
  return out;
}

// Initial states as earlier rows leave them, and random gradients of final ones.
inline void AddStates(std::mt19937& rng, BackwardProblem& problem) {
  const RetentionShape& shape = problem.forward.shape;
  for (int64_t s = 0; s < problem.num_sequences(); ++s) {
    RetentionDoubles before = {.t = 20,
                               .heads_q = shape.heads_kv,
                               .heads_kv = shape.heads_kv,
                               .head_dim = shape.head_dim,
                               .degree = shape.degree,
                               .scale = 1};
    const int64_t size = 20 * shape.heads_kv * shape.head_dim;
    const std::vector<float> K = Normals(rng, size), V = Normals(rng, size);
    before.Q.assign(size, 0.0), before.K.assign(K.begin(), K.end()), before.V.assign(V.begin(), V.end());
    const RetentionDoubleOutputs state = PowerRetentionForwardRef(before);
    problem.S.insert(problem.S.end(), state.S.begin(), state.S.end());
    problem.z.insert(problem.z.end(), state.z.begin(), state.z.end());
  }
  const std::vector<float> dS = Normals(rng, problem.S.size(), 0.01f), dz = Normals(rng, problem.z.size(), 0.01f);
  problem.dS.assign(dS.begin(), dS.end()), problem.dz.assign(dz.begin(), dz.end());
}

inline std::string Name(const BackwardProblem& problem, int64_t chunk, RetentionDtype dtype = RetentionDtype::kBf16) {
  const RetentionShape& shape = problem.forward.shape;
  return std::string(RetentionDtypeName(dtype)) + " t " + std::to_string(problem.forward.t) + " Hq " +
         std::to_string(shape.heads_q) + " Hk " + std::to_string(shape.heads_kv) + " d " +
         std::to_string(shape.head_dim) + " C " + std::to_string(chunk);
}

}  // namespace statehouse::kernels
