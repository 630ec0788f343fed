// `statehouse bench load`: sends requests of random tokens to a running server and measures what comes back.
//
// Thread-safety: one run at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "clients/cli/connection.h"
#include "clients/cli/load_metrics.h"
#include "statehouse/v1/generation.pb.h"

namespace statehouse::cli {

struct LoadOptions {
  int64_t num_prompts = 100;
  double request_rate = 0;      // requests per second; 0: all at once
  double burstiness = 1;        // shape of the gamma-distributed gaps; 1 is a Poisson process, smaller is burstier
  int64_t max_concurrency = 0;  // requests under way at once; 0: no limit
  int64_t input_len = 512;      // tokens of a prompt
  int64_t output_len = 128;     // tokens of an answer; end-of-sequence is ignored
  double range_ratio = 0;       // lengths vary evenly by this share to both sides, [0, 1)
  int64_t num_warmups = 1;      // requests before the clock starts
  uint64_t random_seed = 0;     // of prompts, lengths and gaps
  Goals goals;
  v1::GenerateRequest request;  // sampling and model; input and lengths are replaced
};

// INVALID_ARGUMENT names flag, value and what is allowed.
absl::Status Validate(const LoadOptions& options);
// "ttft:100" and the like into `goals`. INVALID_ARGUMENT names what is wrong.
absl::Status ParseGoals(const std::vector<std::string>& texts, Goals* goals);

// Prompts and lengths of a run: the same for the same options, whatever the timing.
std::vector<v1::GenerateRequest> MakeRequests(const LoadOptions& options, int64_t vocab_size);

// Runs the benchmark. `on_progress(done, total)` may be empty. Single failures are in the report; an error means that
// nothing could be measured (no server, first request refused).
absl::StatusOr<LoadReport> RunLoad(const Connection& connection, const LoadOptions& options,
                                   const std::function<void(int64_t, int64_t)>& on_progress);

std::string LoadReportText(const LoadOptions& options, const LoadReport& report);
// Every figure, in seconds and tokens per second, with the options that made it.
std::string LoadReportJson(const LoadOptions& options, const LoadReport& report);

}  // namespace statehouse::cli
