#include "tests/bench/cuda_bench_support.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "kernels/probe/cuda/gpu_ceilings.h"
#include "statehouse/build_info.h"
#include "tests/bench/bench_flags.h"

namespace statehouse::kernels::bench {
namespace {

constexpr int kWarmUps = 3;

Times Summarise(std::vector<float> times) {
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.front()};
}

}  // namespace

void Check(cudaError_t result, const char* call) {
  if (result == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", call, cudaGetErrorString(result));
  std::exit(1);
}

void Check(const absl::Status& status, const char* call) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s: %s\n", call, std::string(status.message()).c_str());
  std::exit(1);
}

RandomTensor RandomRows(std::mt19937& rng, int64_t size, RetentionDtype dtype) {
  RandomTensor out;
  out.host.resize(size);
  // Sums of uniform numbers are near enough to normal ones, and much faster to draw.
  for (int64_t i = 0; i < size; ++i) {
    const uint32_t a = rng(), b = rng();
    const float x = (static_cast<float>(a & 0xffff) + static_cast<float>(a >> 16) + static_cast<float>(b & 0xffff) +
                     static_cast<float>(b >> 16)) /
                        65536.0f -
                    2.0f;
    out.host[i] = __bfloat162float(__float2bfloat16_rn(1.7f * x));
  }
  const auto upload = [&](const auto& encoded) {
    Check(out.device.Allocate(size * sizeof(encoded[0])), "allocate");
    Check(out.device.Upload(encoded.data(), size * sizeof(encoded[0])), "upload");
  };
  if (dtype == RetentionDtype::kFloat32) {
    upload(out.host);
  } else if (dtype == RetentionDtype::kFp16) {
    upload(std::vector<__half>(out.host.begin(), out.host.end()));
  } else {
    upload(std::vector<__nv_bfloat16>(out.host.begin(), out.host.end()));
  }
  return out;
}

RandomTensor RandomBf16(std::mt19937& rng, int64_t size) { return RandomRows(rng, size, RetentionDtype::kBf16); }

RandomTensor RandomFloat(std::mt19937& rng, int64_t size, float low, float high) {
  RandomTensor out;
  out.host.resize(size);
  for (float& x : out.host) x = low + (high - low) * static_cast<float>(rng() >> 8) / 16777216.0f;
  Check(out.device.Allocate(size * 4), "allocate");
  Check(out.device.Upload(out.host.data(), size * 4), "upload");
  return out;
}

std::vector<float> DownloadRows(const DeviceBuffer& buffer, int64_t size, RetentionDtype dtype) {
  const auto download = [&](auto element) {
    std::vector<decltype(element)> encoded(size);
    Check(buffer.Download(encoded.data(), size * sizeof(element)), "download");
    std::vector<float> out;
    for (const auto& x : encoded) out.push_back(static_cast<float>(x));
    return out;
  };
  if (dtype == RetentionDtype::kFloat32) return download(float());
  return dtype == RetentionDtype::kFp16 ? download(__half()) : download(__nv_bfloat16());
}

std::vector<float> DownloadBf16(const DeviceBuffer& buffer, int64_t size) {
  return DownloadRows(buffer, size, RetentionDtype::kBf16);
}

Times Measure(cudaStream_t stream, int runs, const std::function<void()>& queue) {
  for (int i = 0; i < kWarmUps; ++i) queue();
  cudaEvent_t begin, end;
  Check(cudaEventCreate(&begin), "cudaEventCreate");
  Check(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<float> times(runs);
  for (float& time : times) {
    Check(cudaEventRecord(begin, stream), "cudaEventRecord");
    queue();
    Check(cudaEventRecord(end, stream), "cudaEventRecord");
    Check(cudaEventSynchronize(end), "cudaEventSynchronize");
    Check(cudaEventElapsedTime(&time, begin, end), "cudaEventElapsedTime");
  }
  Check(cudaEventDestroy(begin), "cudaEventDestroy");
  Check(cudaEventDestroy(end), "cudaEventDestroy");
  return Summarise(std::move(times));
}

Times MeasureGraph(cudaStream_t stream, int runs, const std::function<void()>& queue) {
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
  queue();
  Check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  Check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  const Times times = Measure(stream, runs, [&] { Check(cudaGraphLaunch(executable, stream), "cudaGraphLaunch"); });
  Check(cudaGraphExecDestroy(executable), "cudaGraphExecDestroy");
  Check(cudaGraphDestroy(graph), "cudaGraphDestroy");
  return times;
}

Options ParseOptions(int argc, char** argv) {
  Options options;
  BenchFlags flags(std::string(argv[0]) + " [--json FILE] [--filter TEXT] [--runs N]");
  flags.Add("--json", &options.json);
  flags.Add("--filter", &options.filter);
  flags.Add("--runs", &options.runs);
  flags.Parse(argc, argv, 1);
  return options;
}

DeviceProperties RequireDevice() {
  const absl::StatusOr<DeviceProperties> device = GetDeviceProperties(0);
  Check(device.status(), "no GPU, nothing was measured");
  Check(cudaSetDevice(0), "cudaSetDevice");
  return *device;
}

void Report(const std::vector<Row>& rows, const DeviceProperties& device, const std::string& json_path) {
  const absl::StatusOr<double> copy = MeasureGpuCopy(int64_t{4} << 30), products = MeasureGpuProducts();
  Check(copy.status(), "copy");
  if (!products.ok()) std::printf("no matrix rate: %s\n", std::string(products.status().message()).c_str());
  const double copy_gb_s = *copy * 1e-9, matrix_tflop_s = products.ok() ? *products * 1e-12 : 0;
  const char* const commit = GetBuildInfo().commit;
  std::printf(
      "%s, compute capability %d.%d, %d multiprocessors; commit %s; ceilings: copy %.0f GB/s, matrix product %.0f "
      "TFLOP/s\n",
      device.name.c_str(), device.major, device.minor, device.num_multiprocessors, commit, copy_gb_s, matrix_tflop_s);
  std::printf("%-30s %-36s %9s %10s %10s %8s %6s %8s %6s\n", "case", "shape", "error", "median ms", "min ms", "TFLOP/s",
              "share", "GB/s", "share");
  std::ofstream json;
  if (!json_path.empty()) json.open(json_path);
  json << "{\"device\": \"" << device.name << "\", \"commit\": \"" << commit << "\", \"copy_gb_s\": " << copy_gb_s
       << ", \"matrix_tflop_s\": " << matrix_tflop_s << ", \"cases\": [";
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    const double tflop = row.flop / row.times.median_ms * 1e-9, gb = row.bytes / row.times.median_ms * 1e-6;
    const double matrix_share = matrix_tflop_s > 0 ? tflop / matrix_tflop_s : 0;
    std::printf("%-30s %-36s %9.2e %10.4f %10.4f %8.1f %5.1f%% %8.0f %5.1f%%\n", row.name.c_str(), row.shape.c_str(),
                row.error, row.times.median_ms, row.times.min_ms, tflop, 100 * matrix_share, gb, 100 * gb / copy_gb_s);
    json << (i == 0 ? "\n" : ",\n") << "  {\"case\": \"" << row.name << "\", \"shape\": \"" << row.shape
         << "\", \"error\": " << row.error << ", \"median_ms\": " << row.times.median_ms
         << ", \"min_ms\": " << row.times.min_ms << ", \"tflop_s\": " << tflop << ", \"gb_s\": " << gb << "}";
  }
  json << "\n]}\n";
}

}  // namespace statehouse::kernels::bench
