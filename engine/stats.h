// What the engine counts, for GetStatus and /metrics. Written by the engine thread with relaxed atomics, read from
// anywhere; single figures are exact, a set of them may be one step apart.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace statehouse {

// Fixed upper bounds, Prometheus style: counts[i] counts values <= bounds[i]; the last counts all others.
class Histogram {
 public:
  static constexpr size_t kMostBounds = 18;
  static constexpr std::array<double, kMostBounds> kSeconds = {.0005, .001, .0025, .005, .01, .025, .05, .075, .1,
                                                               .25,   .5,   .75,   1.0,  2.5, 5.0,  7.5, 10,   30};
  static constexpr std::array<double, 15> kRows = {1,    8,    16,   32,   64,    128,   256,  512,
                                                   1024, 2048, 4096, 8192, 16384, 32768, 65536};

  // `bounds` are one of the above.
  explicit Histogram(std::span<const double> bounds = kSeconds) : bounds_(bounds) {}
  void Observe(double value);
  std::span<const double> bounds() const { return bounds_; }
  int64_t bucket(int idx) const { return buckets_[idx].load(std::memory_order_relaxed); }  // not cumulative
  int64_t count() const { return count_.load(std::memory_order_relaxed); }
  double sum() const { return sum_.load(std::memory_order_relaxed); }

 private:
  const std::span<const double> bounds_;
  std::array<std::atomic<int64_t>, kMostBounds + 1> buckets_{};
  std::atomic<int64_t> count_{0};
  std::atomic<double> sum_{0};
};

struct EngineStats {
  std::atomic<int64_t> steps{0};
  std::atomic<int64_t> snapshots_saved{0};
  std::atomic<int64_t> snapshots_restored{0};
  std::atomic<int64_t> prefill_tokens{0};  // prompt rows computed
  std::atomic<int64_t> decode_tokens{0};   // decode rows computed
  std::atomic<int64_t> folds{0};           // chunks folded into states, all layers and heads of a sequence counted once
  std::atomic<int64_t> switch_overs{0};
  std::atomic<int64_t> forks{0};
  std::atomic<int64_t> slow_reader_pauses{0};
  std::atomic<int64_t> rejected_queue_full{0};
  std::atomic<int64_t> rejected_principal_limit{0};
  std::array<std::atomic<int64_t>, 6> finished{};  // outputs, by FinishReason
  Histogram step_decode_seconds;                   // steps that held decode rows only
  Histogram step_prefill_seconds;                  // steps that held prompt rows only
  Histogram step_mixed_seconds;
  Histogram step_tokens{Histogram::kRows};  // rows of a step
};

// A picture of now.
struct EngineStatus {
  int64_t slots_total = 0;
  int64_t slots_used = 0;     // held by running sequences
  int64_t slots_zeroing = 0;  // freed, not yet zeroed
  int64_t requests_running = 0;
  int64_t requests_queued = 0;
  int64_t tokens_queued = 0;
  int64_t slot_bytes = 0;
  int64_t state_bytes = 0;  // all slots
  int64_t weight_bytes = 0;
  int64_t workspace_bytes = 0;  // step buffers
  bool accepting = true;
  bool healthy = true;
};

}  // namespace statehouse
