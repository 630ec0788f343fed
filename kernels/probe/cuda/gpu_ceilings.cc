#include "kernels/probe/cuda/gpu_ceilings.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/status.h"
#include "kernels/matmul/cuda/cublas.h"

namespace statehouse::kernels {
namespace {

constexpr int kRuns = 20;

// Median seconds of what `queue` queues.
absl::StatusOr<double> MedianSeconds(cudaStream_t stream, const std::function<absl::Status()>& queue) {
  cudaEvent_t begin = nullptr, end = nullptr;
  absl::Status status = CudaStatus(cudaEventCreate(&begin), "cudaEventCreate");
  if (status.ok()) status = CudaStatus(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<float> times;
  for (int run = -3; run < kRuns && status.ok(); ++run) {
    cudaEventRecord(begin, stream);
    status = queue();
    cudaEventRecord(end, stream);
    float ms = 0;
    if (status.ok()) status = CudaStatus(cudaEventSynchronize(end), "cudaEventSynchronize");
    if (status.ok()) status = CudaStatus(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    if (run >= 0) times.push_back(ms);
  }
  if (begin != nullptr) cudaEventDestroy(begin);
  if (end != nullptr) cudaEventDestroy(end);
  if (!status.ok()) return status;
  std::nth_element(times.begin(), times.begin() + kRuns / 2, times.end());
  return times[kRuns / 2] * 1e-3;
}

}  // namespace

absl::StatusOr<double> MeasureGpuCopy(int64_t bytes) {
  DeviceBuffer from, to;
  for (const absl::Status& status : {from.Allocate(bytes), to.Allocate(bytes)}) {
    if (!status.ok()) return status;
  }
  absl::Status filled = CudaStatus(cudaMemset(from.as<void>(), 0x5a, bytes), "cudaMemset");
  if (!filled.ok()) return filled;
  const absl::StatusOr<Stream> stream = Stream::Make();
  if (!stream.ok()) return stream.status();
  const absl::StatusOr<double> seconds = MedianSeconds(stream->get(), [&] {
    return CudaStatus(cudaMemcpyAsync(to.as<void>(), from.as<void>(), bytes, cudaMemcpyDeviceToDevice, stream->get()),
                      "copy");
  });
  if (!seconds.ok()) return seconds.status();
  return 2.0 * static_cast<double>(bytes) / *seconds;
}

absl::StatusOr<double> MeasureGpuProducts() {
  constexpr int64_t kSide = 8192;
  constexpr size_t kBytes = 2 * kSide * kSide;
  DeviceBuffer weights, x, y, workspace;
  for (const absl::Status& status :
       {weights.Allocate(kBytes), x.Allocate(kBytes), y.Allocate(kBytes), workspace.Allocate(32 << 20)}) {
    if (!status.ok()) return status;
  }
  // Random bf16 numbers about 1: products of zeros may run faster than real ones.
  std::vector<uint16_t> random(kSide * kSide);
  std::mt19937 rng(1);
  for (DeviceBuffer* matrix : {&weights, &x}) {
    for (uint16_t& number : random) number = static_cast<uint16_t>(0x3f00u | (rng() & 0x80ffu));
    if (absl::Status status = matrix->Upload(random.data(), kBytes); !status.ok()) return status;
  }
  const absl::StatusOr<Stream> stream = Stream::Make();
  if (!stream.ok()) return stream.status();
  absl::StatusOr<Cublas> cublas = Cublas::Open(stream->get(), workspace.as<void>(), workspace.bytes());
  if (!cublas.ok()) return cublas.status();
  const absl::StatusOr<double> seconds = MedianSeconds(stream->get(), [&] {
    return cublas->Run({.weights = weights.as<void>(),
                        .x = x.as<void>(),
                        .y = y.as<void>(),
                        .y_is_bf16 = true,
                        .rows = kSide,
                        .outputs = kSide,
                        .inputs = kSide},
                       /*inputs_are_bf16=*/true);
  });
  if (!seconds.ok()) return seconds.status();
  return 2.0 * kSide * kSide * kSide / *seconds;
}

absl::StatusOr<GpuCeilings> MeasureGpuCeilings() {
  const absl::StatusOr<double> copy = MeasureGpuCopy(int64_t{640} << 20);
  if (!copy.ok()) return copy.status();
  const absl::StatusOr<double> products = MeasureGpuProducts();
  if (!products.ok()) return products.status();
  return GpuCeilings{*copy, *products};
}

}  // namespace statehouse::kernels
