// What the GPU benchmarks share: device arrays of random numbers, timing by events, the ceilings of the device, and a
// table that is JSON too.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels::bench {

// Ends the program with the call's name if it failed.
void Check(cudaError_t result, const char* call);
void Check(const absl::Status& status, const char* call);

// Numbers on the device and what they are in float on the host.
struct RandomTensor {
  std::vector<float> host;
  DeviceBuffer device;
};
// Of any type, but bf16 numbers.
RandomTensor RandomRows(std::mt19937& rng, int64_t size, RetentionDtype dtype);
RandomTensor RandomBf16(std::mt19937& rng, int64_t size);
RandomTensor RandomFloat(std::mt19937& rng, int64_t size, float low, float high);
std::vector<float> DownloadRows(const DeviceBuffer& buffer, int64_t size, RetentionDtype dtype);
std::vector<float> DownloadBf16(const DeviceBuffer& buffer, int64_t size);

struct Times {
  double median_ms = 0;
  double min_ms = 0;
};
// Runs `queue` a few times, then `runs` times with events around each.
Times Measure(cudaStream_t stream, int runs, const std::function<void()>& queue);
// The same for work that is captured in a graph once and replayed.
Times MeasureGraph(cudaStream_t stream, int runs, const std::function<void()>& queue);

// --json FILE, --filter TEXT and --runs N; anything else ends the program.
struct Options {
  std::string json, filter;
  int64_t runs = 30;
};
Options ParseOptions(int argc, char** argv);

// The first GPU, made current. Ends the program with status 1 if there is none.
DeviceProperties RequireDevice();

// One measured case; flop and bytes are what the task needs, not what the kernels do.
struct Row {
  std::string name, shape;
  double error = 0;  // against the definition in double
  Times times;
  double flop = 0;
  double bytes = 0;
};
// Measures the ceilings of the device (a copy of 4 GiB; cuBLAS, whose share is left out where there is none) and prints
// the table; with a path, it is written as JSON too. Device and commit go with it.
void Report(const std::vector<Row>& rows, const DeviceProperties& device, const std::string& json_path);

}  // namespace statehouse::kernels::bench
