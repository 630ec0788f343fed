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

absl::StatusOr<GpuCeilings> MeasureGpuCeilings() {
  constexpr size_t kBytes = size_t{640} << 20;
  constexpr int64_t kSide = 8192;
  DeviceBuffer from, to, workspace;
  for (const absl::Status& status : {from.Allocate(kBytes), to.Allocate(kBytes), workspace.Allocate(32 << 20)}) {
    if (!status.ok()) return status;
  }
  absl::StatusOr<Stream> stream = Stream::Make();
  if (!stream.ok()) return stream.status();
  // Random bf16 numbers about 1: products of zeros may run faster than real ones.
  std::vector<uint16_t> random(kSide * kSide);
  std::mt19937 rng(1);
  for (uint16_t& x : random) x = static_cast<uint16_t>(0x3f00u | (rng() & 0x80ffu));
  for (size_t half : {size_t{0}, size_t{1}}) {
    const size_t bytes = random.size() * 2;
    if (absl::Status status = from.Upload(random.data(), bytes, half * bytes); !status.ok()) return status;
  }
  GpuCeilings ceilings;
  const auto copy = MedianSeconds(stream->get(), [&] {
    return CudaStatus(cudaMemcpyAsync(to.as<void>(), from.as<void>(), kBytes, cudaMemcpyDeviceToDevice, stream->get()),
                      "copy");
  });
  if (!copy.ok()) return copy.status();
  ceilings.copy_bytes_per_s = 2.0 * kBytes / *copy;
  absl::StatusOr<Cublas> cublas = Cublas::Open(stream->get(), workspace.as<void>(), workspace.bytes());
  if (!cublas.ok()) return cublas.status();
  const auto product = MedianSeconds(stream->get(), [&] {
    return cublas->Run({.weights = from.as<char>(),
                        .x = from.as<char>() + random.size() * 2,
                        .inputs_are_bf16 = true,
                        .y = to.as<void>(),
                        .y_is_bf16 = true,
                        .rows = kSide,
                        .outputs = kSide,
                        .inputs = kSide});
  });
  if (!product.ok()) return product.status();
  ceilings.bf16_flops_per_s = 2.0 * kSide * kSide * kSide / *product;
  return ceilings;
}

}  // namespace statehouse::kernels
