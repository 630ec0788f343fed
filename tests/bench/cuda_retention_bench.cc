// Power retention on the GPU: whole sequences forward, and decode steps. Each case is checked against the definition in
// double first, then timed.
//   cuda_retention_bench [--json FILE] [--filter TEXT] [--runs N]
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>

#include "kernels/power_retention/cuda/decode.h"
#include "kernels/power_retention/cuda/retention.h"
#include "tests/bench/cuda_bench_support.h"
#include "tests/bench/cuda_slot_bench_cases.h"

namespace statehouse::kernels::bench {
namespace {

constexpr double kMostError = 1e-2;  // bf16

void RequireSmall(double error, const std::string& name) {
  if (error <= kMostError) return;
  std::fprintf(stderr, "%s: relative error %.2e against the definition; not timed\n", name.c_str(), error);
  std::exit(1);
}

struct ForwardCase {
  int64_t t;
  int heads_q, heads_kv, d;
  int64_t chunk;
  RetentionPath path = RetentionPath::kBest;
};

// Relative error of some rows of y, each summed over all keys before it in double.
double ForwardError(const ForwardCase& it, const std::vector<float>& Q, const std::vector<float>& K,
                    const std::vector<float>& V, const std::vector<float>& log_G, const std::vector<float>& y) {
  std::mt19937 rng(std::random_device{}());
  double error = 0, norm = 0;
  for (int sample = 0; sample < 24; ++sample) {
    const int64_t t = sample == 0 ? it.t - 1 : rng() % it.t;
    const int head = rng() % it.heads_q, kv = head / (it.heads_q / it.heads_kv);
    std::vector<double> sums(it.d);
    double denominator = 0, decay = 0;
    for (int64_t j = t; j >= 0 && decay > -60; --j) {
      double score = 0;
      for (int i = 0; i < it.d; ++i)
        score += static_cast<double>(Q[(t * it.heads_q + head) * it.d + i]) * K[(j * it.heads_kv + kv) * it.d + i];
      const double weight = score * score / it.d * std::exp(decay);
      for (int i = 0; i < it.d; ++i) sums[i] += weight * V[(j * it.heads_kv + kv) * it.d + i];
      denominator += weight;
      decay += log_G[j * it.heads_kv + kv];
    }
    for (int i = 0; i < it.d; ++i) {
      const double want = sums[i] / denominator, got = y[(t * it.heads_q + head) * it.d + i];
      error += (got - want) * (got - want);
      norm += want * want;
    }
  }
  return std::sqrt(error / norm);
}

Row BenchForward(const ForwardCase& it, cudaStream_t stream, int runs) {
  std::mt19937 rng(std::random_device{}());
  const RandomTensor Q = RandomBf16(rng, it.t * it.heads_q * it.d), K = RandomBf16(rng, it.t * it.heads_kv * it.d);
  const RandomTensor V = RandomBf16(rng, it.t * it.heads_kv * it.d);
  const RandomTensor log_G = RandomFloat(rng, it.t * it.heads_kv, -0.001f, 0.0f);
  const int64_t lengths[] = {0, it.t};
  absl::StatusOr<CudaRetentionPlan> plan = CudaRetentionPlan::Make(
      {.heads_q = it.heads_q, .heads_kv = it.heads_kv, .head_dim = it.d, .chunk = it.chunk}, lengths);
  Check(plan.status(), "plan");
  DeviceBuffer y, workspace;
  Check(y.Allocate(Q.host.size() * 2), "allocate");
  Check(workspace.Allocate(plan->workspace_bytes()), "allocate");
  Check(cudaMemset(y.as<char>(), 0xff, y.bytes()), "cudaMemset");
  const CudaRetentionForwardArgs args = {.Q = Q.device.as<void>(),
                                         .K = K.device.as<void>(),
                                         .V = V.device.as<void>(),
                                         .log_G = log_G.device.as<float>(),
                                         .y = y.as<void>(),
                                         .workspace = workspace.as<void>(),
                                         .path = it.path};
  Row row;
  row.name = it.path == RetentionPath::kBest ? "forward" : "forward, mma.sync";
  row.shape = "t" + std::to_string(it.t) + " Hq" + std::to_string(it.heads_q) + " Hk" + std::to_string(it.heads_kv) +
              " d" + std::to_string(it.d) + " C" + std::to_string(it.chunk) + " bf16 gated";
  const auto queue = [&] { Check(CudaRetentionForward(*plan, args, stream), "CudaRetentionForward"); };
  queue();
  Check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  row.error = ForwardError(it, Q.host, K.host, V.host, log_G.host, DownloadBf16(y, Q.host.size()));
  RequireSmall(row.error, row.shape);
  row.times = Measure(stream, runs, queue);
  const double D = it.d * (it.d + 1) / 2.0;
  row.flop = it.t * (2 * D * (it.d + 1) * (it.heads_q + it.heads_kv) + 2.0 * it.chunk * it.d * it.heads_q);
  row.bytes = 2.0 * it.t * it.d * (2 * it.heads_q + 2 * it.heads_kv) + 4.0 * it.t * it.heads_kv;
  return row;
}

struct DecodeCase {
  int batch, heads_q, heads_kv, d, tail;
  RetentionStateDtype state_dtype;
  int layers;  // captured in one graph; each has its own slots
  int splits;  // 0: the default
  bool is_settled = true;
};

// One layer's slots of a batch.
struct Layer {
  RandomTensor memory;
  DeviceBuffer addresses;
};

double DecodeError(const DecodeCase& it, const RetentionSlotLayout& layout, const DeviceBuffer& slot,
                   const std::vector<float>& q, const std::vector<float>& y) {
  std::vector<char> bytes(layout.bytes());
  Check(slot.Download(bytes.data(), bytes.size()), "download");
  const auto number = [&](size_t base, int64_t at, bool is_float) {
    float x = 0;
    if (is_float) {
      std::memcpy(&x, bytes.data() + base + 4 * at, 4);
    } else {
      std::memcpy(reinterpret_cast<char*>(&x) + 2, bytes.data() + base + 2 * at, 2);
    }
    return static_cast<double>(x);
  };
  const bool is_float = it.state_dtype == RetentionStateDtype::kFloat32;
  const int64_t P = RetentionStateRows(it.d);
  double error = 0, norm = 0;
  for (int head = 0; head < it.heads_q; head += 5) {
    const int kv = head / (it.heads_q / it.heads_kv);
    std::vector<double> sums(it.d);
    double denominator = 0;
    for (int i = 0; i < it.d; ++i) {
      for (int j = 0; j < it.d; ++j) {
        if (i / 8 > j / 8) continue;
        const int64_t at = kv * P + RetentionStateRow(i, j, it.d);
        const double phi = (i / 8 < j / 8 ? 2.0 : 1.0) * q[head * it.d + i] * q[head * it.d + j];
        denominator += phi * number(layout.normalizer(), at, true);
        for (int column = 0; column < it.d; ++column)
          sums[column] += phi * number(layout.state(), at * it.d + column, is_float);
      }
    }
    for (int row = 0; row < it.tail; ++row) {
      const int64_t at = (kv * layout.shape().tail_rows + row) * it.d;
      double score = 0;
      for (int i = 0; i < it.d; ++i) score += q[head * it.d + i] * number(layout.keys(), at + i, false);
      denominator += score * score;
      for (int i = 0; i < it.d; ++i) sums[i] += score * score * number(layout.values(), at + i, false);
    }
    for (int i = 0; i < it.d; ++i) {
      const double want = sums[i] / denominator;
      error += (y[head * it.d + i] - want) * (y[head * it.d + i] - want);
      norm += want * want;
    }
  }
  return std::sqrt(error / norm);
}

// Random S and tail; a normaliser whose quadratic form is positive; gates of 0.
std::vector<char> RandomSlot(std::mt19937& rng, const DecodeCase& it, const RetentionSlotLayout& layout) {
  std::vector<char> bytes(layout.bytes());
  const auto small = [&] { return static_cast<float>(static_cast<int>(rng() % 2001) - 1000) / 1000.0f; };
  const auto put = [&](size_t at, float x, bool is_float) {
    std::memcpy(bytes.data() + at, reinterpret_cast<const char*>(&x) + (is_float ? 0 : 2), is_float ? 4 : 2);
  };
  const bool is_float = it.state_dtype == RetentionStateDtype::kFloat32;
  const int64_t P = RetentionStateRows(it.d), width = is_float ? 4 : 2;
  for (int64_t i = 0; i < it.heads_kv * P * it.d; ++i) put(layout.state() + i * width, small(), is_float);
  for (int h = 0; h < it.heads_kv; ++h) {
    for (int i = 0; i < it.d; ++i) put(layout.normalizer() + 4 * (h * P + RetentionStateRow(i, i, it.d)), 30, true);
  }
  for (int64_t i = 0; i < layout.shape().tail_rows * it.heads_kv * it.d; ++i) {
    put(layout.keys() + 2 * i, small(), false);
    put(layout.values() + 2 * i, small(), false);
  }
  return bytes;
}

Row BenchDecode(const DecodeCase& it, cudaStream_t stream, int runs) {
  std::mt19937 rng(std::random_device{}());
  const absl::StatusOr<RetentionSlotLayout> layout = RetentionSlotLayout::Make({.heads_q = it.heads_q,
                                                                                .heads_kv = it.heads_kv,
                                                                                .head_dim = it.d,
                                                                                .tail_rows = 256,
                                                                                .state_dtype = it.state_dtype});
  Check(layout.status(), "layout");
  const std::vector<char> slot = RandomSlot(rng, it, *layout);
  std::vector<DeviceBuffer> memory(it.layers * it.batch);
  std::vector<char*> addresses;
  for (DeviceBuffer& buffer : memory) {
    Check(buffer.Allocate(slot.size()), "allocate");
    addresses.push_back(buffer.as<char>());
    if (addresses.size() == 1) {
      Check(buffer.Upload(slot.data(), slot.size()), "upload");
    } else {
      Check(cudaMemcpy(buffer.as<char>(), addresses[0], slot.size(), cudaMemcpyDeviceToDevice), "cudaMemcpy");
    }
  }
  DeviceBuffer device_addresses, positions, state_ends, y, workspace;
  const std::vector<int64_t> state_end_values(it.batch, 1024), position_values(it.batch, 1024 + it.tail - 1);
  const auto upload = [](DeviceBuffer& buffer, const auto& values) {
    Check(buffer.Allocate(values.size() * sizeof(values[0])), "allocate");
    Check(buffer.Upload(values.data(), buffer.bytes()), "upload");
  };
  upload(device_addresses, addresses), upload(positions, position_values), upload(state_ends, state_end_values);
  const RandomTensor q = RandomBf16(rng, int64_t{it.batch} * it.heads_q * it.d);
  Check(y.Allocate(q.host.size() * 2), "allocate");
  int splits = it.splits;
  const absl::StatusOr<DeviceProperties> device = GetDeviceProperties(0);
  Check(device.status(), "device");
  if (splits == 0) splits = RetentionDecodeSplits(*layout, it.batch, device->num_multiprocessors);
  Check(workspace.Allocate(RetentionDecodeWorkspace(*layout, it.batch, 1, splits)), "allocate");
  const auto queue = [&] {
    for (int layer = 0; layer < it.layers; ++layer) {
      const CudaRetentionSlots slots = {device_addresses.as<char*>() + layer * it.batch, positions.as<int64_t>(),
                                        state_ends.as<int64_t>(), it.batch, 1};
      Check(
          CudaRetentionDecode(*layout, slots,
                              {q.device.as<void>(), y.as<void>(), workspace.as<void>(), splits, it.is_settled}, stream),
          "CudaRetentionDecode");
    }
  };
  Row row;
  const bool is_float = it.state_dtype == RetentionStateDtype::kFloat32;
  row.name = "decode, of " + std::to_string(it.layers) + " in a graph";
  row.shape = "b" + std::to_string(it.batch) + " Hq" + std::to_string(it.heads_q) + " Hk" +
              std::to_string(it.heads_kv) + " d" + std::to_string(it.d) + (is_float ? " float32" : " bf16") + " tail" +
              std::to_string(it.tail) + " splits" + std::to_string(splits) + (it.is_settled ? "" : " unsettled");
  queue();
  Check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  row.error = DecodeError(it, *layout, memory[0], q.host, DownloadBf16(y, q.host.size()));
  RequireSmall(row.error, row.shape);
  row.times = MeasureGraph(stream, runs, queue);
  row.times.median_ms /= it.layers, row.times.min_ms /= it.layers;
  const double D = it.d * (it.d + 1) / 2.0;
  row.flop = it.batch * 2 * D * (it.d + 1) * it.heads_q;
  row.bytes = it.batch * it.heads_kv * (D * it.d * (is_float ? 4 : 2) + D * 4 + it.tail * it.d * 4.0);
  return row;
}

int Main(const Options& options) {
  const DeviceProperties device = RequireDevice();
  absl::StatusOr<Stream> stream = Stream::Make();
  Check(stream.status(), "stream");
  std::vector<Row> rows;
  const auto wants = [&](const char* name) { return std::string(name).find(options.filter) != std::string::npos; };
  if (wants("forward")) {
    for (const ForwardCase& it :
         {ForwardCase{65536, 8, 8, 64, 1024}, ForwardCase{65536, 8, 8, 64, 512}, ForwardCase{65536, 8, 8, 64, 2048},
          ForwardCase{16384, 24, 2, 128, 1024}, ForwardCase{16384, 8, 8, 128, 1024}}) {
      rows.push_back(BenchForward(it, stream->get(), options.runs));
    }
  }
  if (wants("decode")) {
    constexpr RetentionStateDtype kFloat = RetentionStateDtype::kFloat32, kShort = RetentionStateDtype::kBf16;
    for (const DecodeCase& it :
         {DecodeCase{1, 24, 2, 128, 200, kFloat, 30, 0}, DecodeCase{1, 24, 2, 128, 200, kFloat, 30, 0, false},
          DecodeCase{1, 24, 2, 128, 200, kFloat, 30, 66}, DecodeCase{1, 24, 2, 128, 200, kShort, 30, 0},
          DecodeCase{4, 24, 2, 128, 200, kFloat, 4, 0}, DecodeCase{16, 24, 2, 128, 200, kFloat, 4, 0},
          DecodeCase{16, 24, 2, 128, 200, kShort, 4, 0}, DecodeCase{64, 24, 2, 128, 200, kFloat, 4, 0},
          DecodeCase{64, 24, 2, 128, 200, kFloat, 4, 16}, DecodeCase{64, 24, 2, 128, 200, kShort, 4, 0},
          DecodeCase{64, 24, 2, 128, 200, kShort, 4, 16}, DecodeCase{32, 8, 8, 64, 200, kFloat, 4, 0},
          DecodeCase{32, 8, 8, 64, 200, kShort, 4, 0}}) {
      rows.push_back(BenchDecode(it, stream->get(), options.runs));
    }
  }
  if (wants("slots")) {
    for (const Row& row : BenchSlots(stream->get(), options.runs)) rows.push_back(row);
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
