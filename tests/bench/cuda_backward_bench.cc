// Gradients of power retention on the GPU, alone and after the forward pass. Some rows of dQ, dK and dV are checked
// against the definition in double first, then times are taken; dlog_G is checked by the tests alone.
//   cuda_backward_bench [--json FILE] [--runs N] [--filter TEXT]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "kernels/power_retention/cuda/backward.h"
#include "kernels/power_retention/cuda/retention.h"
#include "tests/bench/cuda_bench_support.h"

namespace statehouse::kernels::bench {
namespace {

double MostError(RetentionDtype dtype) {
  return dtype == RetentionDtype::kBf16 ? 2e-2 : dtype == RetentionDtype::kFp16 ? 4e-3 : 1e-4;
}

struct Case {
  int64_t t;
  int heads_q, heads_kv, d;
  int64_t chunk;  // of the backward pass
  RetentionPath path = RetentionPath::kBest;
  RetentionDtype dtype = RetentionDtype::kBf16;
};

struct Tensors {
  RandomTensor Q, K, V, dY, log_G;
  DeviceBuffer y, denominator, dQ, dK, dV, dlog_G;
};

// Rows of gradients in double, from y and denominators as the forward pass left them.
class Checker {
 public:
  Checker(const Case& it, const Tensors& tensors)
      : it_(it),
        in_(tensors),
        y_(DownloadRows(tensors.y, tensors.Q.host.size(), it.dtype)),
        denominator_(it.t * it.heads_q),
        G_(it.t * it.heads_kv) {
    Check(tensors.denominator.Download(denominator_.data(), denominator_.size() * 4), "download");
    for (size_t i = 0; i < G_.size(); ++i)
      G_[i] = in_.log_G.host[i] + (i < static_cast<size_t>(it.heads_kv) ? 0 : G_[i - it.heads_kv]);
  }

  // The largest relative error of the three.
  double Worst() {
    const std::vector<float> dQ = DownloadRows(in_.dQ, in_.Q.host.size(), it_.dtype),
                             dK = DownloadRows(in_.dK, in_.K.host.size(), it_.dtype),
                             dV = DownloadRows(in_.dV, in_.K.host.size(), it_.dtype);
    std::mt19937 rng(std::random_device{}());
    double error[3] = {}, norm[3] = {};
    for (int sample = 0; sample < 8; ++sample) {
      const int64_t row = sample == 0 ? it_.t - 1 : rng() % it_.t;
      const int head = rng() % it_.heads_q, kv = head / group();
      Clear();
      for (int64_t j = 0; j <= row; ++j) AddPair(row, j, head, kv);
      Compare(dq_, dQ.data() + (row * it_.heads_q + head) * it_.d, error[0], norm[0]);
      Clear();
      for (int q = kv * group(); q < (kv + 1) * group(); ++q) {
        for (int64_t t = row; t < it_.t; ++t) AddPair(t, row, q, kv);
      }
      Compare(dk_, dK.data() + (row * it_.heads_kv + kv) * it_.d, error[1], norm[1]);
      Compare(dv_, dV.data() + (row * it_.heads_kv + kv) * it_.d, error[2], norm[2]);
    }
    double worst = 0;
    for (int i = 0; i < 3; ++i) worst = std::max(worst, std::sqrt(error[i] / norm[i]));
    return std::isnan(error[0] + error[1] + error[2]) ? 1 : worst;
  }

 private:
  int group() const { return it_.heads_q / it_.heads_kv; }
  void Clear() {
    for (std::vector<double>* sums : {&dq_, &dk_, &dv_}) sums->assign(it_.d, 0.0);
  }
  void AddPair(int64_t t, int64_t j, int head, int kv) {
    const double decay = G_[t * it_.heads_kv + kv] - G_[j * it_.heads_kv + kv];
    if (decay < -40) return;
    const int64_t query = (t * it_.heads_q + head) * it_.d, key = (j * it_.heads_kv + kv) * it_.d;
    double s = 0, dW = 0;
    for (int i = 0; i < it_.d; ++i) {
      s += static_cast<double>(in_.Q.host[query + i]) * in_.K.host[key + i];
      dW += static_cast<double>(in_.dY.host[query + i]) * (in_.V.host[key + i] - y_[query + i]);
    }
    const double a = std::exp(decay) / it_.d / denominator_[t * it_.heads_q + head];
    for (int i = 0; i < it_.d; ++i) {
      dq_[i] += 2 * a * s * dW * in_.K.host[key + i];
      dk_[i] += 2 * a * s * dW * in_.Q.host[query + i];
      dv_[i] += a * s * s * in_.dY.host[query + i];
    }
  }
  void Compare(const std::vector<double>& want, const float* got, double& error, double& norm) const {
    for (int i = 0; i < it_.d; ++i) error += (got[i] - want[i]) * (got[i] - want[i]), norm += want[i] * want[i];
  }

  const Case& it_;
  const Tensors& in_;
  std::vector<float> y_, denominator_;
  std::vector<double> G_, dq_, dk_, dv_;
};

Tensors MakeTensors(const Case& it) {
  std::mt19937 rng(std::random_device{}());
  const int64_t queries = it.t * it.heads_q * it.d, keys = it.t * it.heads_kv * it.d;
  const int64_t element = it.dtype == RetentionDtype::kFloat32 ? 4 : 2;
  Tensors out{RandomRows(rng, queries, it.dtype),
              RandomRows(rng, keys, it.dtype),
              RandomRows(rng, keys, it.dtype),
              RandomRows(rng, queries, it.dtype),
              RandomFloat(rng, it.t * it.heads_kv, -0.001f, 0.0f),
              {},
              {},
              {},
              {},
              {},
              {}};
  const auto allocate = [](DeviceBuffer& buffer, int64_t bytes) {
    Check(buffer.Allocate(bytes), "allocate");
    Check(cudaMemset(buffer.as<char>(), 0xff, bytes), "cudaMemset");
  };
  allocate(out.y, queries * element), allocate(out.denominator, it.t * it.heads_q * 4);
  allocate(out.dQ, queries * element), allocate(out.dK, keys * element), allocate(out.dV, keys * element);
  allocate(out.dlog_G, it.t * it.heads_kv * 4);
  return out;
}

// Two rows: the backward pass alone, and after the forward pass.
void Bench(const Case& it, cudaStream_t stream, int runs, std::vector<Row>& rows) {
  const Tensors tensors = MakeTensors(it);
  const int64_t lengths[] = {0, it.t};
  CudaRetentionShape shape = {.heads_q = it.heads_q, .heads_kv = it.heads_kv, .head_dim = it.d, .dtype = it.dtype};
  const absl::StatusOr<CudaRetentionPlan> forward_plan = CudaRetentionPlan::Make(shape, lengths);
  Check(forward_plan.status(), "plan");
  shape.chunk = it.chunk;
  const absl::StatusOr<CudaRetentionPlan> plan = CudaRetentionPlan::Make(shape, lengths);
  Check(plan.status(), "plan");
  DeviceBuffer workspace;
  Check(workspace.Allocate(std::max(forward_plan->workspace_bytes(), CudaRetentionBackwardWorkspace(*plan, false))),
        "allocate");
  const CudaRetentionForwardArgs forward = {.Q = tensors.Q.device.as<void>(),
                                            .K = tensors.K.device.as<void>(),
                                            .V = tensors.V.device.as<void>(),
                                            .log_G = tensors.log_G.device.as<float>(),
                                            .y = tensors.y.as<void>(),
                                            .denominator = tensors.denominator.as<float>(),
                                            .workspace = workspace.as<void>(),
                                            .path = it.path};
  const CudaRetentionBackwardArgs backward = {.Q = forward.Q,
                                              .K = forward.K,
                                              .V = forward.V,
                                              .log_G = forward.log_G,
                                              .y = forward.y,
                                              .denominator = forward.denominator,
                                              .dY = tensors.dY.device.as<void>(),
                                              .dQ = tensors.dQ.as<void>(),
                                              .dK = tensors.dK.as<void>(),
                                              .dV = tensors.dV.as<void>(),
                                              .dlog_G = tensors.dlog_G.as<float>(),
                                              .workspace = workspace.as<void>(),
                                              .path = it.path};
  const auto queue_forward = [&] { Check(CudaRetentionForward(*forward_plan, forward, stream), "forward"); };
  const auto queue_backward = [&] { Check(CudaRetentionBackward(*plan, backward, stream), "backward"); };
  queue_forward(), queue_backward();
  Check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  Row row;
  row.shape = "t" + std::to_string(it.t) + " Hq" + std::to_string(it.heads_q) + " Hk" + std::to_string(it.heads_kv) +
              " d" + std::to_string(it.d) + " C" + std::to_string(it.chunk) + " " + RetentionDtypeName(it.dtype) +
              " gated";
  row.error = Checker(it, tensors).Worst();
  if (row.error > MostError(it.dtype)) {
    std::fprintf(stderr, "%s: relative error %.2e against the definition; not timed\n", row.shape.c_str(), row.error);
    std::exit(1);
  }
  // Without what is computed again: a state's products with rows, and pairs up to the diagonal. Without states, all
  // pairs.
  const bool has_states = it.chunk < it.t;
  const double D = has_states ? it.d * (it.d + 1) / 2.0 : 0, pairs = static_cast<double>(std::min(it.chunk, it.t)) / 2;
  const double states = 2 * D * (it.d + 1) * (it.heads_q + it.heads_kv), products = 2 * pairs * it.d * it.heads_q;
  const std::string path = it.path == RetentionPath::kBest ? "" : ", mma.sync";
  row.name = "backward" + path;
  row.flop = it.t * (2 * states + 5 * products);
  const double element = it.dtype == RetentionDtype::kFloat32 ? 4 : 2;
  row.bytes = element * it.t * it.d * (5 * it.heads_q + 4 * it.heads_kv);
  row.times = Measure(stream, runs, queue_backward);
  rows.push_back(row);
  row.name = "forward + backward" + path;
  row.flop = it.t * (3 * states + 7 * products);
  row.bytes = element * it.t * it.d * (7 * it.heads_q + 6 * it.heads_kv);
  row.times = Measure(stream, runs, [&] { queue_forward(), queue_backward(); });
  rows.push_back(row);
}

int Main(const Options& options) {
  const DeviceProperties device = RequireDevice();
  absl::StatusOr<Stream> stream = Stream::Make();
  Check(stream.status(), "stream");
  std::vector<Row> rows;
  for (const Case& it : {Case{65536, 8, 8, 64, 1024}, Case{65536, 8, 8, 64, 512}, Case{65536, 8, 8, 64, 2048},
                         Case{65536, 8, 8, 64, 1024, RetentionPath::kMmaSync}, Case{16384, 24, 2, 128, 1024},
                         Case{16384, 24, 2, 128, 2048}, Case{4096, 8, 8, 64, 4096}, Case{4096, 8, 8, 64, 1024},
                         Case{4096, 8, 8, 64, 4096, RetentionPath::kBest, RetentionDtype::kFp16},
                         Case{4096, 8, 8, 64, 1024, RetentionPath::kBest, RetentionDtype::kFp16},
                         Case{4096, 8, 8, 64, 1024, RetentionPath::kBest, RetentionDtype::kFloat32},
                         Case{4096, 24, 2, 128, 4096, RetentionPath::kBest, RetentionDtype::kFloat32}}) {
    const std::string name =
        "d" + std::to_string(it.d) + " C" + std::to_string(it.chunk) + " " + RetentionDtypeName(it.dtype);
    if (name.find(options.filter) != std::string::npos) Bench(it, stream->get(), options.runs, rows);
  }
  Report(rows, device, options.json);
  return 0;
}

}  // namespace
}  // namespace statehouse::kernels::bench

int main(int argc, char** argv) {
  namespace bench = statehouse::kernels::bench;
  return bench::Main(bench::ParseOptions(argc, argv));
}
