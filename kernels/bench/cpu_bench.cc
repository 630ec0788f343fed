#include "kernels/bench/cpu_bench.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/math/aligned_buffer.h"
#include "kernels/power_retention/power_retention.h"
#include "kernels/probe/bandwidth.h"
#include "kernels/probe/fma_peak.h"

namespace statehouse::kernels::bench {
namespace {

constexpr int64_t kStepRows = 512;
constexpr int64_t kMinRuns = 3;
constexpr int kCheckedRows = 24;
constexpr int64_t kLargerThanCaches = int64_t{1} << 28;

std::vector<float> Uniform(int64_t size, float low, float high, std::mt19937& rng) {
  std::uniform_real_distribution<float> uniform(low, high);
  std::vector<float> out(size);
  for (float& x : out) x = uniform(rng);
  return out;
}

// A batch of sequences with their memory, and what they are fed.
class Sequences {
 public:
  Sequences(const RetentionCase& it, const RetentionLayout& layout, ThreadPool& pool)
      : it_(it), layout_(layout), pool_(pool) {}

  absl::Status Make() {
    std::mt19937 rng(std::random_device{}());
    const int64_t rows = it_.batch * it_.length, queries = rows * it_.heads_q * it_.head_dim,
                  keys = rows * it_.heads_kv * it_.head_dim;
    constexpr float kUnit = 1.7320508f;  // of variance 1
    in_.Q = Uniform(queries, -kUnit, kUnit, rng);
    in_.K = Uniform(keys, -kUnit, kUnit, rng);
    in_.V = Uniform(keys, -kUnit, kUnit, rng);
    in_.log_G = Uniform(rows * it_.heads_kv, -0.001f, 0.0f, rng);
    y_.assign(queries, 0.0f);
    memory_.resize(it_.batch);
    for (AlignedBuffer& memory : memory_) {
      const int64_t bytes = layout_.layer_floats() * static_cast<int64_t>(sizeof(float));
      if (!memory.Allocate(bytes))
        return absl::ResourceExhaustedError(absl::StrCat("no memory for a state of ", bytes, " bytes"));
    }
    return scratch_.Reserve(layout_, it_.batch * kStepRows, pool_.num_threads());
  }

  // Rows [begin, end) of every sequence, in steps.
  void Run(int64_t begin, int64_t end) {
    for (int64_t position = begin; position < end; position += kStepRows) {
      std::vector<RetentionRows> step;
      for (int64_t b = 0; b < it_.batch; ++b) {
        const int64_t row = b * it_.length + position;
        step.push_back({.q = in_.Q.data() + row * it_.heads_q * it_.head_dim,
                        .k = in_.K.data() + row * it_.heads_kv * it_.head_dim,
                        .v = in_.V.data() + row * it_.heads_kv * it_.head_dim,
                        .log_g = in_.log_G.data() + row * it_.heads_kv,
                        .y = y_.data() + row * it_.heads_q * it_.head_dim,
                        .memory = memory_[b].as<float>(),
                        .position = position,
                        .num_rows = std::min(kStepRows, end - position)});
      }
      PowerRetention(layout_, step, scratch_, pool_);
    }
  }

  // A sequence without rows is all zero; a fold adds to what it finds.
  void Forget() {
    for (AlignedBuffer& memory : memory_) std::fill_n(memory.as<float>(), layout_.layer_floats(), 0.0f);
  }
  double Error() const { return ForwardError(it_, in_, y_, kCheckedRows); }

 private:
  const RetentionCase& it_;
  const RetentionLayout& layout_;
  ThreadPool& pool_;
  HostInputs in_;
  std::vector<float> y_;
  std::vector<AlignedBuffer> memory_;
  RetentionScratch scratch_;
};

absl::Status CheckSupport(const RetentionCase& it) {
  if (it.pass == Pass::kBackward || it.pass == Pass::kForwardBackward) {
    return absl::UnimplementedError(
        absl::StrCat(PassName(it.pass), " on the CPU: there is no backward pass; it needs a GPU"));
  }
  if (it.dtype != Number::kFloat32 || it.state_dtype != Number::kFloat32) {
    return absl::UnimplementedError(absl::StrCat(ShapeName(it), " on the CPU: there is only float32"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Figure> MeasureOnCpu(const RetentionCase& it, int64_t runs, double max_seconds, ThreadPool& pool) {
  if (absl::Status status = CheckCase(it); !status.ok()) return status;
  if (absl::Status status = CheckSupport(it); !status.ok()) return status;
  if (absl::Status status = CheckRows(it); !status.ok()) return status;
  const absl::StatusOr<RetentionLayout> layout = RetentionLayout::Make({.heads_q = it.heads_q,
                                                                        .heads_kv = it.heads_kv,
                                                                        .head_dim = it.head_dim,
                                                                        .chunk = it.chunk == 0 ? 128 : it.chunk,
                                                                        .switch_over = 0});
  if (!layout.ok()) return layout.status();
  Sequences sequences(it, *layout, pool);
  if (absl::Status status = sequences.Make(); !status.ok()) return status;
  sequences.Run(0, it.length);
  Figure out;
  out.chunk = layout->shape().chunk;
  out.error = sequences.Error();
  if (!(out.error <= MostError(it))) {
    return absl::DataLossError(absl::StrFormat("%s, %s: relative error %.1e against the definition: not timed",
                                               PassName(it.pass), ShapeName(it), out.error));
  }
  std::vector<double> seconds;
  double total = 0;
  while (static_cast<int64_t>(seconds.size()) < runs &&
         (static_cast<int64_t>(seconds.size()) < kMinRuns || total < max_seconds)) {
    if (it.pass == Pass::kForward) sequences.Forget();
    const auto start = std::chrono::steady_clock::now();
    // The last row again: taking back one row needs no copy.
    sequences.Run(it.pass == Pass::kForward ? 0 : it.length - 1, it.length);
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    total += seconds.back();
  }
  std::sort(seconds.begin(), seconds.end());
  out.median = seconds[seconds.size() / 2];
  out.min = seconds.front();
  out.runs = static_cast<int64_t>(seconds.size());
  return out;
}

Ceilings MeasureCpu(ThreadPool& pool) {
  return {"", MeasureReadBandwidth(kLargerThanCaches, pool), MeasureFmaPeak(pool)};
}

}  // namespace statehouse::kernels::bench
