// What the GPU benchmarks share: their flags, timing by events, the ceilings of the device, and a table that is JSON
// too.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/bench/retention_case.h"
#include "kernels/cuda/device.h"

namespace statehouse::kernels::bench {

// Ends the program with the call's name if it failed.
void Check(cudaError_t result, const char* call);
void Check(const absl::Status& status, const char* call);

struct Times {
  double median_ms = 0;
  double min_ms = 0;
};
// Runs `queue` a few times, then `runs` times with events around each.
Times Measure(cudaStream_t stream, int64_t runs, const std::function<absl::Status()>& queue);

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
// Checks and times those of `cases` (kernels/bench) whose name and shape hold `options.filter`. Ends the program if a
// result is wrong or there is no kernel for it.
void AddCases(const std::vector<RetentionCase>& cases, const Options& options, std::vector<Row>* rows);

// Measures the ceilings of the device (a copy of 4 GiB; cuBLAS, whose share is left out where there is none) and prints
// the table; with a path, it is written as JSON too. Device and commit go with it.
void Report(const std::vector<Row>& rows, const DeviceProperties& device, const std::string& json_path);

}  // namespace statehouse::kernels::bench
