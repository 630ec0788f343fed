// What the server counts beside the engine's own figures, for /metrics. Thread-safety: any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/event_stream.h"

namespace statehouse {

// Counts of values by upper bound, Prometheus style: counts are not cumulative here.
class BucketHistogram {
 public:
  explicit BucketHistogram(std::span<const double> bounds)
      : bounds_(bounds.begin(), bounds.end()), counts_(bounds.size() + 1) {}
  // Adds `times` equal values.
  void Observe(double value, int64_t times = 1);
  const std::vector<double>& bounds() const { return bounds_; }
  int64_t count(size_t idx) const { return counts_[idx].load(std::memory_order_relaxed); }
  double sum() const { return sum_.load(std::memory_order_relaxed); }

 private:
  const std::vector<double> bounds_;
  std::vector<std::atomic<int64_t>> counts_;
  std::atomic<double> sum_{0};
};

struct ServerMetrics {
  ServerMetrics();

  // Adds the figures of a request that has ended.
  void ObserveRequest(const Usage& usage, const Timings& timings);
  // Counts a turn of a session that was settled, and what that took.
  void ObserveTurn(bool committed, bool repeated, absl::Duration settling);
  // Counts a call that ended with this status, by method ("Generate") and code name ("OK").
  void CountCall(const std::string& method, const std::string& code);
  std::map<std::pair<std::string, std::string>, int64_t> calls() const;

  std::atomic<int64_t> live_calls{0};         // Generate and GenerateOnce reactors that exist
  std::atomic<int64_t> prompt_tokens{0};      // of admitted requests
  std::atomic<int64_t> generation_tokens{0};  // passed on to calls
  BucketHistogram time_to_first_token;
  BucketHistogram inter_token_latency;
  BucketHistogram time_per_output_token;  // one value per output
  BucketHistogram e2e_latency;
  BucketHistogram queue_time;
  BucketHistogram prefill_time;
  BucketHistogram decode_time;
  BucketHistogram inference_time;
  BucketHistogram request_prompt_tokens;
  BucketHistogram request_generation_tokens;
  BucketHistogram turn_settling;  // from a turn's last token to its acknowledgement
  std::atomic<int64_t> turns_committed{0};
  std::atomic<int64_t> turns_repeated{0};
  std::atomic<int64_t> turns_dropped{0};

 private:
  mutable std::mutex mu_;
  std::map<std::pair<std::string, std::string>, int64_t> calls_;  // guarded by mu_
};

}  // namespace statehouse
