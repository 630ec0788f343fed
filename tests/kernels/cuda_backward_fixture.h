// Runs the gradients of power retention on the GPU from host arrays, and says what they must come to.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "kernels/power_retention/cuda/backward.h"
#include "tests/kernels/cuda_retention_fixture.h"
#include "tests/kernels/retention_backward_plain.h"

namespace statehouse::kernels {

// Packed sequences with what flows back into them. States are canonical, one after another; empty: none.
struct BackwardProblem {
  RetentionProblem forward;
  std::vector<int64_t> cu_seqlens;
  std::vector<float> dY;
  std::vector<double> S, z, dS, dz;  // initial states; gradients of final ones

  int64_t num_sequences() const { return static_cast<int64_t>(cu_seqlens.size()) - 1; }
};

struct BackwardRun {
  std::vector<float> dQ, dK, dV, dlog_G;
  DeviceState dinitial;
};

// Between canonical pairs and the padded layout; of gradients, by what is stored. Of degree 4 they are the same.
enum class Converts { kState, kGradient };
inline int64_t CanonicalPair(int i, int j, int64_t d) {
  return std::min(i, j) * d - int64_t{std::min(i, j)} * (std::min(i, j) - 1) / 2 + std::abs(i - j);
}
inline std::vector<float> ToDevice(const std::vector<double>& canonical, int d, int64_t width, Converts what) {
  const int64_t D = int64_t{d} * (d + 1) / 2, P = RetentionStateRows(d), count = canonical.size() / (D * width);
  std::vector<float> out(count * P * width);
  for (int64_t state = 0; state < count; ++state) {
    for (int i = 0; i < d; ++i) {
      for (int j = i / 8 * 8; j < d; ++j) {
        const bool is_diagonal = i / 8 == j / 8;
        double factor = i == j ? 1 : 0.5;
        // A pair that is stored twice may have any two derivatives of the right mean.
        if (what == Converts::kGradient) factor = !is_diagonal ? 2 : i == j ? 1 : i < j ? 1.25 : 0.75;
        for (int64_t column = 0; column < width; ++column) {
          out[(state * P + RetentionStateRow(i, j, d)) * width + column] =
              static_cast<float>(factor * canonical[(state * D + CanonicalPair(i, j, d)) * width + column]);
        }
      }
    }
  }
  return out;
}
inline std::vector<float> GradientFromDevice(const std::vector<float>& device, int d, int64_t width) {
  const int64_t D = int64_t{d} * (d + 1) / 2, P = RetentionStateRows(d), count = device.size() / (P * width);
  std::vector<float> out(count * D * width);
  for (int64_t state = 0; state < count; ++state) {
    for (int i = 0; i < d; ++i) {
      for (int j = i / 8 * 8; j < d; ++j) {
        for (int64_t column = 0; column < width; ++column) {
          out[(state * D + CanonicalPair(i, j, d)) * width + column] +=
              (i == j ? 1.0f : 0.5f) * device[(state * P + RetentionStateRow(i, j, d)) * width + column];
        }
      }
    }
  }
  return out;
}

// One sequence in double.
inline RetentionDoubles SequenceDoubles(const BackwardProblem& problem, int64_t sequence) {
  const RetentionShape& shape = problem.forward.shape;
  const RetentionProblem part = Slice(problem.forward, problem.cu_seqlens[sequence], problem.cu_seqlens[sequence + 1]);
  const auto doubles = [](const std::vector<float>& x) { return std::vector<double>(x.begin(), x.end()); };
  const auto state = [&](const std::vector<double>& all) {
    const int64_t size = all.size() / problem.num_sequences();
    return std::vector<double>(all.begin() + sequence * size, all.begin() + (sequence + 1) * size);
  };
  return {.t = part.t,
          .heads_q = shape.heads_q,
          .heads_kv = shape.heads_kv,
          .head_dim = shape.head_dim,
          .degree = shape.degree,
          .scale = shape.scale == 0 ? 1 / std::sqrt(static_cast<double>(shape.head_dim)) : shape.scale,
          .Q = doubles(part.Q),
          .K = doubles(part.K),
          .V = doubles(part.V),
          .log_G = doubles(part.log_G),
          .S = state(problem.S),
          .z = state(problem.z)};
}

// y and denominators from pairs of rows and the initial state.
inline RetentionDoubleOutputs PairsForward(const RetentionDoubles& in) {
  if (!in.S.empty()) return PowerRetentionForwardRef(in);
  RetentionDoubleOutputs out{std::vector<double>(in.Q.size()), std::vector<double>(in.t * in.heads_q), {}, {}};
  const int d = in.head_dim, group = in.heads_q / in.heads_kv;
  for (int64_t row = 0; row < in.t * in.heads_q; ++row) {
    const int64_t t = row / in.heads_q, kv = row % in.heads_q / group;
    double decay = 0;
    for (int64_t j = t; j >= 0; --j) {
      double score = 0;
      for (int i = 0; i < d; ++i) score += in.Q[row * d + i] * in.K[(j * in.heads_kv + kv) * d + i];
      const double squared = in.scale * score * in.scale * score;
      const double weight = (in.degree == 2 ? squared : squared * squared) * std::exp(decay);
      for (int i = 0; i < d; ++i) out.y[row * d + i] += weight * in.V[(j * in.heads_kv + kv) * d + i];
      out.denominator[row] += weight;
      if (!in.log_G.empty()) decay += in.log_G[j * in.heads_kv + kv];
    }
    for (int i = 0; i < d; ++i) out.y[row * d + i] /= out.denominator[row] > 0 ? out.denominator[row] : 1;
  }
  return out;
}

// Everything that a case needs once: y and denominators as a perfect forward pass leaves them, and exact gradients.
struct BackwardCase {
  BackwardProblem problem;
  RetentionDtype dtype;
  std::vector<float> y, denominator;
  RetentionGradients exact;
};

inline void Append(const RetentionGradients& from, RetentionGradients& to) {
  const auto append = [](const std::vector<double>& a, std::vector<double>& b) {
    b.insert(b.end(), a.begin(), a.end());
  };
  append(from.dQ, to.dQ), append(from.dK, to.dK), append(from.dV, to.dV), append(from.dlog_G, to.dlog_G);
  append(from.dS, to.dS), append(from.dz, to.dz);
}

inline RetentionGradients Plain(const BackwardProblem& problem, const std::vector<float>& y,
                                const std::vector<float>& denominator, RetentionDtype dtype, int64_t chunk,
                                bool is_exact, RetentionDoubleOutputs* forward = nullptr) {
  RetentionGradients out;
  for (int64_t s = 0; s < problem.num_sequences(); ++s) {
    const RetentionDoubles in = SequenceDoubles(problem, s);
    const int64_t d = in.head_dim, rows = in.t * in.heads_q, first = problem.cu_seqlens[s] * in.heads_q;
    const auto part = [&](const std::vector<float>& all, int64_t width) {
      return std::vector<double>(all.begin() + first * width, all.begin() + (first + rows) * width);
    };
    const auto state = [&](const std::vector<double>& all) {
      const int64_t size = all.size() / problem.num_sequences();
      return std::vector<double>(all.begin() + s * size, all.begin() + (s + 1) * size);
    };
    const std::vector<double> dY = part(problem.dY, d), dS = state(problem.dS), dz = state(problem.dz);
    PlainOptions options = {.chunk = chunk};
    if (is_exact) {
      options.chunk = std::clamp<int64_t>(in.t, 1, in.degree == 2 ? 1024 : in.t);
      const RetentionDoubleOutputs exact = PairsForward(in);
      Append(PlainBackward<double>(in, exact.y, exact.denominator, dY, dS, dz, options).gradients(), out);
      if (forward == nullptr) continue;
      forward->y.insert(forward->y.end(), exact.y.begin(), exact.y.end());
      forward->denominator.insert(forward->denominator.end(), exact.denominator.begin(), exact.denominator.end());
    } else {
      options.round = [dtype](double x) { return static_cast<double>(Rounded(static_cast<float>(x), dtype)); };
      Append(PlainBackward<float>(in, part(y, d), part(denominator, 1), dY, dS, dz, options).gradients(), out);
    }
  }
  return out;
}

inline BackwardCase MakeBackwardCase(BackwardProblem problem, RetentionDtype dtype) {
  BackwardCase out{std::move(problem), dtype, {}, {}, {}};
  RetentionDoubleOutputs forward;
  out.exact = Plain(out.problem, {}, {}, dtype, 0, true, &forward);
  for (const double x : forward.y) out.y.push_back(Rounded(static_cast<float>(x), dtype));
  out.denominator.assign(forward.denominator.begin(), forward.denominator.end());
  return out;
}

// One backward pass with poisoned outputs and workspace. The gradient of the initial state is asked for if there is any
// state, or with `wants_dinitial`. With `keeps_states` a forward pass runs first and leaves its states; y and
// denominators are the case's all the same.
inline BackwardRun RunBackward(const BackwardCase& it, int64_t chunk, RetentionPath path, bool wants_dinitial = false,
                               bool keeps_states = false) {
  const BackwardProblem& problem = it.problem;
  const RetentionShape& shape = problem.forward.shape;
  const absl::StatusOr<CudaRetentionPlan> plan = CudaRetentionPlan::Make({.heads_q = shape.heads_q,
                                                                          .heads_kv = shape.heads_kv,
                                                                          .head_dim = shape.head_dim,
                                                                          .degree = shape.degree,
                                                                          .scale = shape.scale,
                                                                          .chunk = chunk,
                                                                          .has_states = !problem.S.empty(),
                                                                          .dtype = it.dtype},
                                                                         problem.cu_seqlens);
  if (!plan.ok()) {
    ADD_FAILURE() << plan.status();
    return {};
  }
  const int d = shape.head_dim, element = ElementBytes(it.dtype);
  const RetentionProblem& in = problem.forward;
  const DeviceBuffer Q = OnDevice(Encode(in.Q, it.dtype)), K = OnDevice(Encode(in.K, it.dtype));
  const DeviceBuffer V = OnDevice(Encode(in.V, it.dtype)), log_G = OnDevice(in.log_G);
  const DeviceBuffer y = OnDevice(Encode(it.y, it.dtype)), denominator = OnDevice(it.denominator);
  const DeviceBuffer dY = OnDevice(Encode(problem.dY, it.dtype));
  const auto upload = [&](const std::vector<double>& canonical, int64_t width, Converts what) {
    if (shape.degree == 4) return OnDevice(std::vector<float>(canonical.begin(), canonical.end()));
    return OnDevice(ToDevice(canonical, d, width, what));
  };
  const DeviceBuffer S = upload(problem.S, d, Converts::kState), z = upload(problem.z, 1, Converts::kState);
  const DeviceBuffer dS = upload(problem.dS, d, Converts::kGradient), dz = upload(problem.dz, 1, Converts::kGradient);
  const bool has_state = !problem.S.empty(), has_gradient = !problem.dS.empty();
  wants_dinitial = wants_dinitial || has_state || has_gradient;
  const int64_t states =
      wants_dinitial ? problem.num_sequences() * shape.heads_kv * RetentionStateRows(d, shape.degree) : 0;
  const PoisonedBuffer dQ(in.Q.size() * element), dK(in.K.size() * element), dV(in.V.size() * element);
  const PoisonedBuffer dlog_G(in.K.size() / d * 4), dS0(states * d * 4), dz0(states * 4);
  const PoisonedBuffer workspace(CudaRetentionBackwardWorkspace(*plan, wants_dinitial));
  const PoisonedBuffer saved(keeps_states ? CudaRetentionSavedBytes(*plan) : 0);
  if (keeps_states) {
    const PoisonedBuffer forward_y(in.Q.size() * element), forward_workspace(plan->workspace_bytes());
    const absl::Status status = CudaRetentionForward(*plan,
                                                     {.Q = Q.as<void>(),
                                                      .K = K.as<void>(),
                                                      .V = V.as<void>(),
                                                      .log_G = in.log_G.empty() ? nullptr : log_G.as<float>(),
                                                      .y = forward_y.as<void>(),
                                                      .initial_state = has_state ? S.as<float>() : nullptr,
                                                      .initial_normalizer = has_state ? z.as<float>() : nullptr,
                                                      .workspace = forward_workspace.as<void>(),
                                                      .saved = saved.as<void>(),
                                                      .path = path},
                                                     nullptr);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess) << cudaGetErrorString(cudaGetLastError());
  }
  const std::vector<char> left = saved.Download();
  const CudaRetentionBackwardArgs args = {.Q = Q.as<void>(),
                                          .K = K.as<void>(),
                                          .V = V.as<void>(),
                                          .log_G = in.log_G.empty() ? nullptr : log_G.as<float>(),
                                          .y = y.as<void>(),
                                          .denominator = denominator.as<float>(),
                                          .dY = dY.as<void>(),
                                          .initial_state = has_state ? S.as<float>() : nullptr,
                                          .initial_normalizer = has_state ? z.as<float>() : nullptr,
                                          .dfinal_state = has_gradient ? dS.as<float>() : nullptr,
                                          .dfinal_normalizer = has_gradient ? dz.as<float>() : nullptr,
                                          .dQ = dQ.as<void>(),
                                          .dK = dK.as<void>(),
                                          .dV = dV.as<void>(),
                                          .dlog_G = dlog_G.as<float>(),
                                          .dinitial_state = wants_dinitial ? dS0.as<float>() : nullptr,
                                          .dinitial_normalizer = wants_dinitial ? dz0.as<float>() : nullptr,
                                          .workspace = workspace.as<void>(),
                                          .saved = keeps_states ? saved.as<void>() : nullptr,
                                          .path = path};
  const absl::Status status = CudaRetentionBackward(*plan, args, nullptr);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess) << cudaGetErrorString(cudaGetLastError());
  workspace.Download();
  EXPECT_EQ(saved.Download(), left) << "what the forward pass left was written to";
  BackwardRun run{Decode(dQ.Download(), it.dtype),
                  Decode(dK.Download(), it.dtype),
                  Decode(dV.Download(), it.dtype),
                  Floats(dlog_G.Download()),
                  {}};
  if (wants_dinitial) run.dinitial = {Floats(dS0.Download()), Floats(dz0.Download())};
  return run;
}

}  // namespace statehouse::kernels
