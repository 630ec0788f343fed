// Whole sequences: forward, backward, both.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/bench/cuda/gpu_arrays.h"
#include "kernels/bench/cuda/gpu_cases.h"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/backward.h"
#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels::bench {
namespace {

constexpr int kForwardRows = 24, kGradientRows = 8;  // that are checked

struct Tensors {
  HostInputs host;
  std::vector<float> dY_host;
  DeviceBuffer Q, K, V, log_G, dY;
  DeviceBuffer y, denominator, dQ, dK, dV, dlog_G, workspace, saved;
};

struct Plans {
  absl::StatusOr<CudaRetentionPlan> forward, backward;
};

absl::StatusOr<Plans> MakePlans(const RetentionCase& it) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i <= it.batch; ++i) lengths.push_back(i * it.length);
  CudaRetentionShape shape = {.heads_q = it.heads_q,
                              .heads_kv = it.heads_kv,
                              .head_dim = it.head_dim,
                              .chunk = it.chunk,
                              .dtype = ToDtype(it.dtype)};
  Plans out = {CudaRetentionPlan::Make(shape, lengths), absl::UnknownError("not asked for")};
  if (!out.forward.ok()) return out.forward.status();
  if (it.pass == Pass::kForward) return out;
  if (absl::Status status = CheckRetentionBackwardShape(shape); !status.ok()) return status;
  if (shape.chunk == 0) shape.chunk = RetentionBackwardChunk(shape, it.length);
  out.backward = CudaRetentionPlan::Make(shape, lengths);
  if (!out.backward.ok()) return out.backward.status();
  if (it.keeps_states) out.forward = CudaRetentionPlan::Make(shape, lengths);  // the same for both
  if (!out.forward.ok()) return out.forward.status();
  return out;
}

Tensors MakeTensors(const RetentionCase& it, const Plans& plans, GpuArrays& arrays) {
  const int64_t rows = it.batch * it.length, queries = rows * it.heads_q * it.head_dim,
                keys = rows * it.heads_kv * it.head_dim, width = it.dtype == Number::kFloat32 ? 4 : 2;
  Tensors out;
  out.Q = arrays.Normal(queries, it.dtype, &out.host.Q);
  out.K = arrays.Normal(keys, it.dtype, &out.host.K);
  out.V = arrays.Normal(keys, it.dtype, &out.host.V);
  out.log_G = arrays.Uniform(rows * it.heads_kv, -0.001f, 0.0f, &out.host.log_G);
  out.y = arrays.Poisoned(queries * width);
  out.denominator = arrays.Poisoned(rows * it.heads_q * 4);
  size_t workspace = plans.forward->workspace_bytes();
  if (it.pass != Pass::kForward) {
    out.dY = arrays.Normal(queries, it.dtype, &out.dY_host);
    out.dQ = arrays.Poisoned(queries * width);
    out.dK = arrays.Poisoned(keys * width);
    out.dV = arrays.Poisoned(keys * width);
    out.dlog_G = arrays.Poisoned(rows * it.heads_kv * 4);
    workspace = std::max(workspace, CudaRetentionBackwardWorkspace(*plans.backward, /*has_states=*/false));
  }
  if (it.keeps_states) out.saved = arrays.Poisoned(static_cast<int64_t>(CudaRetentionSavedBytes(*plans.forward)));
  out.workspace = arrays.Poisoned(static_cast<int64_t>(workspace));
  return out;
}

absl::Status QueueForward(const RetentionCase& it, const Plans& plans, const Tensors& tensors, cudaStream_t stream) {
  return CudaRetentionForward(*plans.forward,
                              {.Q = tensors.Q.as<void>(),
                               .K = tensors.K.as<void>(),
                               .V = tensors.V.as<void>(),
                               .log_G = tensors.log_G.as<float>(),
                               .y = tensors.y.as<void>(),
                               .denominator = tensors.denominator.as<float>(),
                               .workspace = tensors.workspace.as<void>(),
                               .saved = it.keeps_states ? tensors.saved.as<void>() : nullptr,
                               .path = it.only_sm80 ? RetentionPath::kMmaSync : RetentionPath::kBest},
                              stream);
}

absl::Status QueueBackward(const RetentionCase& it, const Plans& plans, const Tensors& tensors, cudaStream_t stream) {
  return CudaRetentionBackward(*plans.backward,
                               {.Q = tensors.Q.as<void>(),
                                .K = tensors.K.as<void>(),
                                .V = tensors.V.as<void>(),
                                .log_G = tensors.log_G.as<float>(),
                                .y = tensors.y.as<void>(),
                                .denominator = tensors.denominator.as<float>(),
                                .dY = tensors.dY.as<void>(),
                                .dQ = tensors.dQ.as<void>(),
                                .dK = tensors.dK.as<void>(),
                                .dV = tensors.dV.as<void>(),
                                .dlog_G = tensors.dlog_G.as<float>(),
                                .workspace = tensors.workspace.as<void>(),
                                .saved = it.keeps_states ? tensors.saved.as<void>() : nullptr,
                                .path = it.only_sm80 ? RetentionPath::kMmaSync : RetentionPath::kBest},
                               stream);
}

absl::StatusOr<double> CheckResult(const RetentionCase& it, Tensors& tensors, GpuArrays& arrays) {
  const int64_t queries = static_cast<int64_t>(tensors.host.Q.size()),
                keys = static_cast<int64_t>(tensors.host.K.size());
  const std::vector<float> y = arrays.Download(tensors.y, queries, it.dtype);
  if (it.pass == Pass::kForward) {
    if (!arrays.status().ok()) return arrays.status();
    return ForwardError(it, tensors.host, y, kForwardRows);
  }
  const HostGradients gradients = {
      .dY = std::move(tensors.dY_host),
      .y = y,
      .denominator = arrays.Download(tensors.denominator, it.batch * it.length * it.heads_q, Number::kFloat32),
      .dQ = arrays.Download(tensors.dQ, queries, it.dtype),
      .dK = arrays.Download(tensors.dK, keys, it.dtype),
      .dV = arrays.Download(tensors.dV, keys, it.dtype)};
  if (!arrays.status().ok()) return arrays.status();
  const double error = GradientError(it, tensors.host, gradients, kGradientRows);
  if (it.pass == Pass::kBackward) return error;
  return std::max(error, ForwardError(it, tensors.host, y, kForwardRows));
}

}  // namespace

absl::StatusOr<Figure> MeasureSequences(const RetentionCase& it, cudaStream_t stream, int64_t runs) {
  if (absl::Status status = CheckRows(it); !status.ok()) return status;
  const absl::StatusOr<Plans> plans = MakePlans(it);
  if (!plans.ok()) return plans.status();
  GpuArrays arrays;
  Tensors tensors = MakeTensors(it, *plans, arrays);
  if (!arrays.status().ok()) return arrays.status();
  const auto forward = [&] { return QueueForward(it, *plans, tensors, stream); };
  const auto backward = [&] { return QueueBackward(it, *plans, tensors, stream); };
  const auto both = [&] {
    const absl::Status status = forward();
    return status.ok() ? backward() : status;
  };
  if (absl::Status status = it.pass == Pass::kForward ? forward() : both(); !status.ok()) return status;
  if (absl::Status status = CudaStatus(cudaStreamSynchronize(stream), "cudaStreamSynchronize"); !status.ok())
    return status;
  const absl::StatusOr<double> error = CheckResult(it, tensors, arrays);
  if (!error.ok()) return error.status();
  if (absl::Status status = AcceptError(it, *error); !status.ok()) return status;
  absl::StatusOr<Figure> figure = it.pass == Pass::kForward    ? Time(stream, runs, forward)
                                  : it.pass == Pass::kBackward ? Time(stream, runs, backward)
                                                               : Time(stream, runs, both);
  if (!figure.ok()) return figure.status();
  figure->error = *error;
  figure->chunk = it.pass == Pass::kForward ? plans->forward->shape().chunk : plans->backward->shape().chunk;
  return figure;
}

}  // namespace statehouse::kernels::bench
