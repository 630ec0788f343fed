// Arrays of random numbers on the GPU whose values the host knows, and times by events, for measurements.
//
// Thread-safety: one thread at a time.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/bench/retention_case.h"
#include "kernels/cuda/device.h"
#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels::bench {

RetentionDtype ToDtype(Number number);

// Allocations of one measurement: after a failure all calls do nothing, and status() says what failed first.
class GpuArrays {
 public:
  GpuArrays() : rng_(std::random_device{}()) {}

  const absl::Status& status() const { return status_; }
  // Keeps the first error.
  void Note(absl::Status status);

  // About normal numbers; `host`, if not null, gets them as rounded to the type.
  DeviceBuffer Normal(int64_t size, Number number, std::vector<float>* host);
  // Uniform in [low, high), float32.
  DeviceBuffer Uniform(int64_t size, float low, float high, std::vector<float>* host);
  // Filled with NaN (0xff), so that what is not written shows.
  DeviceBuffer Poisoned(int64_t bytes);
  template <typename T>
  DeviceBuffer Upload(const std::vector<T>& values) {
    DeviceBuffer out = Poisoned(static_cast<int64_t>(values.size() * sizeof(T)));
    if (status_.ok()) Note(out.Upload(values.data(), values.size() * sizeof(T)));
    return out;
  }
  std::vector<float> Download(const DeviceBuffer& buffer, int64_t size, Number number);
  uint32_t Random() { return rng_(); }

 private:
  absl::Status status_;
  std::mt19937 rng_;
};

// Runs `queue` until the GPU is warm, then `runs` times with events around each: median and min of the figure, in
// seconds.
absl::StatusOr<Figure> Time(cudaStream_t stream, int64_t runs, const std::function<absl::Status()>& queue);
// The same for work that is captured in a graph once and replayed.
absl::StatusOr<Figure> TimeGraph(cudaStream_t stream, int64_t runs, const std::function<absl::Status()>& queue);

}  // namespace statehouse::kernels::bench
