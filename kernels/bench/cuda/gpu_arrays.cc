#include "kernels/bench/cuda/gpu_arrays.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <utility>

#include "kernels/cuda/status.h"

namespace statehouse::kernels::bench {
namespace {

// Before times are taken: an idle GPU takes a while to raise its clocks.
constexpr int kWarmUps = 3;
constexpr float kWarmUpMilliseconds = 50;

// Sums of uniform numbers are near enough to normal ones, and much faster to draw.
float NearlyNormal(std::mt19937& rng) {
  const uint32_t a = rng(), b = rng();
  const float sum = static_cast<float>(a & 0xffff) + static_cast<float>(a >> 16) + static_cast<float>(b & 0xffff) +
                    static_cast<float>(b >> 16);
  return 1.7f * (sum / 65536.0f - 2.0f);
}

// Calls `use` with a number of the type that `number` stands for.
template <typename Use>
void WithType(Number number, Use use) {
  if (number == Number::kBf16) return use(__nv_bfloat16());
  if (number == Number::kFp16) return use(__half());
  use(float());
}

class Events {
 public:
  Events() {
    status_ = CudaStatus(cudaEventCreate(&begin_), "cudaEventCreate");
    if (status_.ok()) status_ = CudaStatus(cudaEventCreate(&end_), "cudaEventCreate");
  }
  ~Events() {
    if (begin_ != nullptr) cudaEventDestroy(begin_);
    if (end_ != nullptr) cudaEventDestroy(end_);
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  absl::StatusOr<float> Milliseconds(cudaStream_t stream, const std::function<absl::Status()>& queue) {
    if (!status_.ok()) return status_;
    if (absl::Status s = CudaStatus(cudaEventRecord(begin_, stream), "cudaEventRecord"); !s.ok()) return s;
    if (absl::Status s = queue(); !s.ok()) return s;
    if (absl::Status s = CudaStatus(cudaEventRecord(end_, stream), "cudaEventRecord"); !s.ok()) return s;
    if (absl::Status s = CudaStatus(cudaEventSynchronize(end_), "cudaEventSynchronize"); !s.ok()) return s;
    float out = 0;
    if (absl::Status s = CudaStatus(cudaEventElapsedTime(&out, begin_, end_), "cudaEventElapsedTime"); !s.ok())
      return s;
    return out;
  }

 private:
  absl::Status status_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace

RetentionDtype ToDtype(Number number) {
  if (number == Number::kBf16) return RetentionDtype::kBf16;
  return number == Number::kFp16 ? RetentionDtype::kFp16 : RetentionDtype::kFloat32;
}

void GpuArrays::Note(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
}

DeviceBuffer GpuArrays::Normal(int64_t size, Number number, std::vector<float>* host) {
  DeviceBuffer out;
  if (host != nullptr) host->resize(size);
  WithType(number, [&](auto type) {
    std::vector<decltype(type)> encoded(size);
    for (int64_t i = 0; i < size; ++i) {
      encoded[i] = decltype(type)(NearlyNormal(rng_));
      if (host != nullptr) (*host)[i] = static_cast<float>(encoded[i]);
    }
    out = Upload(encoded);
  });
  return out;
}

DeviceBuffer GpuArrays::Uniform(int64_t size, float low, float high, std::vector<float>* host) {
  std::vector<float> values(size);
  for (float& x : values) x = low + (high - low) * static_cast<float>(rng_() >> 8) / 16777216.0f;
  DeviceBuffer out = Upload(values);
  if (host != nullptr) *host = std::move(values);
  return out;
}

DeviceBuffer GpuArrays::Poisoned(int64_t bytes) {
  DeviceBuffer out;
  if (status_.ok()) Note(out.Allocate(bytes));
  if (status_.ok()) Note(CudaStatus(cudaMemset(out.as<void>(), 0xff, bytes), "cudaMemset"));
  return out;
}

std::vector<float> GpuArrays::Download(const DeviceBuffer& buffer, int64_t size, Number number) {
  std::vector<float> out(size);
  WithType(number, [&](auto type) {
    std::vector<decltype(type)> encoded(size);
    if (status_.ok()) Note(buffer.Download(encoded.data(), size * sizeof(type)));
    std::transform(encoded.begin(), encoded.end(), out.begin(), [](auto x) { return static_cast<float>(x); });
  });
  return out;
}

absl::StatusOr<Figure> Time(cudaStream_t stream, int64_t runs, const std::function<absl::Status()>& queue) {
  Events events;
  std::vector<float> times;
  float warm = 0;
  for (int run = 0; run < kWarmUps || warm < kWarmUpMilliseconds; ++run) {
    const absl::StatusOr<float> time = events.Milliseconds(stream, queue);
    if (!time.ok()) return time.status();
    warm += std::max(*time, 1e-3f);
  }
  for (int64_t run = 0; run < runs; ++run) {
    const absl::StatusOr<float> time = events.Milliseconds(stream, queue);
    if (!time.ok()) return time.status();
    times.push_back(*time);
  }
  std::sort(times.begin(), times.end());
  Figure out;
  out.median = times[times.size() / 2] * 1e-3;
  out.min = times.front() * 1e-3;
  out.runs = runs;
  return out;
}

absl::StatusOr<Figure> TimeGraph(cudaStream_t stream, int64_t runs, const std::function<absl::Status()>& queue) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  absl::Status status =
      CudaStatus(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
  if (!status.ok()) return status;
  status = queue();
  const absl::Status ended = CudaStatus(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  if (status.ok()) status = ended;
  if (status.ok()) status = CudaStatus(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  Figure out;
  if (status.ok()) {
    const auto figure =
        Time(stream, runs, [&] { return CudaStatus(cudaGraphLaunch(executable, stream), "cudaGraphLaunch"); });
    status = figure.status();
    if (figure.ok()) out = *figure;
  }
  if (executable != nullptr) cudaGraphExecDestroy(executable);
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (!status.ok()) return status;
  return out;
}

}  // namespace statehouse::kernels::bench
