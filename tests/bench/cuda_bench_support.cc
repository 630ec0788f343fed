#include "tests/bench/cuda_bench_support.h"

#include <cuda_bf16.h>
#include <dlfcn.h>
#include <library_types.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

namespace statehouse::kernels::bench {
namespace {

constexpr int kWarmUps = 3;

Times Summarise(std::vector<float> times) {
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.front()};
}

double MatrixRate(cudaStream_t stream) {
  void* library = dlopen("libcublas.so.13", RTLD_NOW);
  if (library == nullptr) return 0;
  const auto create = reinterpret_cast<int (*)(void**)>(dlsym(library, "cublasCreate_v2"));
  const auto set_stream = reinterpret_cast<int (*)(void*, cudaStream_t)>(dlsym(library, "cublasSetStream_v2"));
  using Gemm = int (*)(void*, int, int, int, int, int, const void*, const void*, cudaDataType, int, const void*,
                       cudaDataType, int, const void*, void*, cudaDataType, int, int, int);
  const auto gemm = reinterpret_cast<Gemm>(dlsym(library, "cublasGemmEx"));
  void* handle = nullptr;
  if (create == nullptr || set_stream == nullptr || gemm == nullptr || create(&handle) != 0) return 0;
  constexpr int kNotTransposed = 0, kCompute32F = 68,
                kDefaultAlgorithm = -1;  // as in cublas_api.h, not needed to build
  set_stream(handle, stream);
  constexpr int n = 8192;
  std::mt19937 rng(1);
  const RandomTensor a = RandomBf16(rng, int64_t{n} * n), b = RandomBf16(rng, int64_t{n} * n);
  DeviceBuffer c;
  Check(c.Allocate(size_t{2} * n * n), "allocate");
  const float one = 1, zero = 0;
  const Times times = Measure(stream, 20, [&] {
    if (gemm(handle, kNotTransposed, kNotTransposed, n, n, n, &one, a.device.as<void>(), CUDA_R_16BF, n,
             b.device.as<void>(), CUDA_R_16BF, n, &zero, c.as<void>(), CUDA_R_16BF, n, kCompute32F,
             kDefaultAlgorithm) != 0) {
      std::fprintf(stderr, "cublasGemmEx failed\n");
      std::exit(1);
    }
  });
  return 2.0 * n * n * n / times.median_ms * 1e-9;
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

RandomTensor RandomBf16(std::mt19937& rng, int64_t size) {
  RandomTensor out;
  std::vector<__nv_bfloat16> encoded(size);
  out.host.resize(size);
  // Sums of uniform numbers are near enough to normal ones, and much faster to draw.
  for (int64_t i = 0; i < size; ++i) {
    const uint32_t a = rng(), b = rng();
    const float x = (static_cast<float>(a & 0xffff) + static_cast<float>(a >> 16) + static_cast<float>(b & 0xffff) +
                     static_cast<float>(b >> 16)) /
                        65536.0f -
                    2.0f;
    encoded[i] = __float2bfloat16_rn(1.7f * x);
    out.host[i] = __bfloat162float(encoded[i]);
  }
  Check(out.device.Allocate(size * 2), "allocate");
  Check(out.device.Upload(encoded.data(), size * 2), "upload");
  return out;
}

RandomTensor RandomFloat(std::mt19937& rng, int64_t size, float low, float high) {
  RandomTensor out;
  out.host.resize(size);
  for (float& x : out.host) x = low + (high - low) * static_cast<float>(rng() >> 8) / 16777216.0f;
  Check(out.device.Allocate(size * 4), "allocate");
  Check(out.device.Upload(out.host.data(), size * 4), "upload");
  return out;
}

std::vector<float> DownloadBf16(const DeviceBuffer& buffer, int64_t size) {
  std::vector<__nv_bfloat16> encoded(size);
  Check(buffer.Download(encoded.data(), size * 2), "download");
  std::vector<float> out(size);
  for (int64_t i = 0; i < size; ++i) out[i] = __bfloat162float(encoded[i]);
  return out;
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

Ceilings MeasureCeilings(cudaStream_t stream) {
  Ceilings out;
  constexpr size_t kBytes = size_t{4} << 30;
  DeviceBuffer from, to;
  Check(from.Allocate(kBytes), "allocate");
  Check(to.Allocate(kBytes), "allocate");
  Check(cudaMemset(from.as<char>(), 0x5a, kBytes), "cudaMemset");
  const Times times = Measure(stream, 20, [&] {
    Check(cudaMemcpyAsync(to.as<char>(), from.as<char>(), kBytes, cudaMemcpyDeviceToDevice, stream), "cudaMemcpyAsync");
  });
  out.copy_gb_s = 2.0 * kBytes / times.median_ms * 1e-6;
  out.matrix_tflop_s = MatrixRate(stream);
  return out;
}

void Report(const std::vector<Row>& rows, const Ceilings& ceilings, const DeviceProperties& device,
            const std::string& json_path) {
  std::printf(
      "%s, compute capability %d.%d, %d multiprocessors; ceilings: copy %.0f GB/s, matrix product %.0f TFLOP/s\n",
      device.name.c_str(), device.major, device.minor, device.num_multiprocessors, ceilings.copy_gb_s,
      ceilings.matrix_tflop_s);
  std::printf("%-30s %-36s %9s %10s %10s %8s %6s %8s %6s\n", "case", "shape", "error", "median ms", "min ms", "TFLOP/s",
              "share", "GB/s", "share");
  std::ofstream json;
  if (!json_path.empty()) json.open(json_path);
  json << "{\"device\": \"" << device.name << "\", \"copy_gb_s\": " << ceilings.copy_gb_s
       << ", \"matrix_tflop_s\": " << ceilings.matrix_tflop_s << ", \"cases\": [";
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    const double tflop = row.flop / row.times.median_ms * 1e-9, gb = row.bytes / row.times.median_ms * 1e-6;
    const double matrix_share = ceilings.matrix_tflop_s > 0 ? tflop / ceilings.matrix_tflop_s : 0;
    std::printf("%-30s %-36s %9.2e %10.4f %10.4f %8.1f %5.1f%% %8.0f %5.1f%%\n", row.name.c_str(), row.shape.c_str(),
                row.error, row.times.median_ms, row.times.min_ms, tflop, 100 * matrix_share, gb,
                100 * gb / ceilings.copy_gb_s);
    json << (i == 0 ? "\n" : ",\n") << "  {\"case\": \"" << row.name << "\", \"shape\": \"" << row.shape
         << "\", \"error\": " << row.error << ", \"median_ms\": " << row.times.median_ms
         << ", \"min_ms\": " << row.times.min_ms << ", \"tflop_s\": " << tflop << ", \"gb_s\": " << gb << "}";
  }
  json << "\n]}\n";
}

}  // namespace statehouse::kernels::bench
