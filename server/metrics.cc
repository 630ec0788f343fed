#include "server/metrics.h"

#include <algorithm>

namespace statehouse {
namespace {

// The bounds that vLLM's dashboards expect, in seconds and in tokens.
constexpr std::array kFirstToken = {.001, .005, .01, .02, .04, .06, .08, .1,  .25,  .5,   .75,
                                    1.0,  2.5,  5.0, 7.5, 10., 20., 40., 80., 160., 640., 2560.};
constexpr std::array kBetweenTokens = {.001, .0025, .005, .01, .025, .05, .075, .1,  .15, .2,  .3,
                                       .4,   .5,    .75,  1.0, 2.5,  5.0, 7.5,  10., 20., 40., 80.};
constexpr std::array kRequest = {.005, .01, .025, .05, .1,  .3,  .5,  .8,   1.0,  1.5,  2.0,  2.5,   5.0,
                                 10.,  15., 20.,  30., 40., 50., 60., 120., 240., 480., 960., 1920., 7680.};
constexpr std::array kTokens = {1.,  2.,  5.,  10., 20., 50., 100., 200., 500., 1e3,
                                2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5,  5e5,  1e6};

}  // namespace

void BucketHistogram::Observe(double value, int64_t times) {
  const size_t idx = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  counts_[idx].fetch_add(times, std::memory_order_relaxed);
  sum_.fetch_add(value * static_cast<double>(times), std::memory_order_relaxed);
}

ServerMetrics::ServerMetrics()
    : time_to_first_token(kFirstToken),
      inter_token_latency(kBetweenTokens),
      time_per_output_token(kBetweenTokens),
      e2e_latency(kRequest),
      queue_time(kRequest),
      prefill_time(kRequest),
      decode_time(kRequest),
      inference_time(kRequest),
      request_prompt_tokens(kTokens),
      request_generation_tokens(kTokens),
      turn_settling(kBetweenTokens) {}

void ServerMetrics::ObserveRequest(const Usage& usage, const Timings& timings) {
  request_prompt_tokens.Observe(static_cast<double>(usage.prompt_tokens));
  request_generation_tokens.Observe(static_cast<double>(usage.completion_tokens));
  e2e_latency.Observe(timings.total);
  queue_time.Observe(timings.queued);
  if (usage.completion_tokens == 0) return;
  time_to_first_token.Observe(timings.first_token);
  prefill_time.Observe(timings.prefill);
  decode_time.Observe(timings.decode);
  inference_time.Observe(timings.prefill + timings.decode);
}

void ServerMetrics::ObserveTurn(bool committed, bool repeated, absl::Duration settling) {
  (repeated ? turns_repeated : committed ? turns_committed : turns_dropped).fetch_add(1, std::memory_order_relaxed);
  if (committed && !repeated) turn_settling.Observe(absl::ToDoubleSeconds(settling));
}

void ServerMetrics::CountCall(const std::string& method, const std::string& code) {
  std::lock_guard<std::mutex> lock(mu_);
  ++calls_[{method, code}];
}

std::map<std::pair<std::string, std::string>, int64_t> ServerMetrics::calls() const {
  std::lock_guard<std::mutex> lock(mu_);
  return calls_;
}

}  // namespace statehouse
