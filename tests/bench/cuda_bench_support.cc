#include "tests/bench/cuda_bench_support.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "kernels/bench/cuda/gpu_arrays.h"
#include "kernels/bench/cuda/gpu_bench.h"
#include "kernels/probe/cuda/gpu_ceilings.h"
#include "statehouse/build_info.h"
#include "tests/bench/bench_flags.h"

namespace statehouse::kernels::bench {
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

Times Measure(cudaStream_t stream, int64_t runs, const std::function<absl::Status()>& queue) {
  const absl::StatusOr<Figure> figure = Time(stream, runs, queue);
  Check(figure.status(), "Measure");
  return {figure->median * 1e3, figure->min * 1e3};
}

void AddCases(const std::vector<RetentionCase>& cases, const Options& options, std::vector<Row>* rows) {
  for (const RetentionCase& it : cases) {
    const std::string name = PassName(it.pass), shape = ShapeName(it);
    if ((name + " " + shape).find(options.filter) == std::string::npos) continue;
    const absl::StatusOr<Figure> figure = MeasureOnGpu(it, options.runs);
    Check(figure.status(), shape.c_str());
    rows->push_back({name,
                     shape,
                     figure->error,
                     {figure->median * 1e3, figure->min * 1e3},
                     NeededFlops(it, figure->chunk),
                     NeededBytes(it, figure->chunk)});
  }
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
  std::printf("%-10s %-62s %9s %10s %10s %8s %6s %8s %6s\n", "case", "shape", "error", "median ms", "min ms", "TFLOP/s",
              "share", "GB/s", "share");
  std::ofstream json;
  if (!json_path.empty()) json.open(json_path);
  json << "{\"device\": \"" << device.name << "\", \"commit\": \"" << commit << "\", \"copy_gb_s\": " << copy_gb_s
       << ", \"matrix_tflop_s\": " << matrix_tflop_s << ", \"cases\": [";
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    const double tflop = row.flop / row.times.median_ms * 1e-9, gb = row.bytes / row.times.median_ms * 1e-6;
    const double matrix_share = matrix_tflop_s > 0 ? tflop / matrix_tflop_s : 0;
    std::printf("%-10s %-62s %9.2e %10.4f %10.4f %8.1f %5.1f%% %8.0f %5.1f%%\n", row.name.c_str(), row.shape.c_str(),
                row.error, row.times.median_ms, row.times.min_ms, tflop, 100 * matrix_share, gb, 100 * gb / copy_gb_s);
    json << (i == 0 ? "\n" : ",\n") << "  {\"case\": \"" << row.name << "\", \"shape\": \"" << row.shape
         << "\", \"error\": " << row.error << ", \"median_ms\": " << row.times.median_ms
         << ", \"min_ms\": " << row.times.min_ms << ", \"tflop_s\": " << tflop << ", \"gb_s\": " << gb << "}";
  }
  json << "\n]}\n";
  if (!json_path.empty() && !json.flush()) Check(absl::UnavailableError("cannot write " + json_path), "--json");
}

}  // namespace statehouse::kernels::bench
