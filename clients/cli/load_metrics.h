// What a load benchmark makes of its requests, by the definitions of `vllm bench serve`:
//   TTFT  request sent to first event with output, even if its text is still empty
//   TPOT  (latency - TTFT) / (output tokens - 1), of requests with more than one output token
//   ITL   every gap between events with output
//   E2EL  request sent to last event with output
// beside the two other conventions in use, so that figures can be compared: aiperf's time to the first non-empty text
// and (latency - that) / (output tokens - 1), and guidellm's latency / output tokens (which includes the TTFT). Pure
// arithmetic. Thread-safety: plain data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace statehouse::cli {

// One request. Times in seconds since the benchmark began.
struct RequestRecord {
  bool ok = false;
  std::string error;  // of one that is not ok
  double sent = 0;
  std::vector<double> outputs;  // arrival of each event with output
  double first_text = -1;       // arrival of the first non-empty text; -1: there was none
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
};

// Service levels in milliseconds; a request is good if it keeps all that are set.
struct Goals {
  std::optional<double> ttft_ms, tpot_ms, e2el_ms;
  bool any() const { return ttft_ms || tpot_ms || e2el_ms; }
};

// Seconds.
struct Distribution {
  int64_t count = 0;
  double mean = 0, stddev = 0, min = 0, p50 = 0, p90 = 0, p99 = 0, max = 0;
  std::vector<double> percentiles;  // 0 … 100; empty for none
};

// A floor in seconds beside what was measured.
struct FloorFigure {
  double floor = 0;
  double measured = 0;
  double share() const { return measured > 0 ? floor / measured : 0; }
};

// The least that a load could have taken on the server's machine (load_floor.h).
struct LoadFloors {
  double sequences = 0;                        // that decoded at a time, the mean over the run; at least 1
  double context = 0;                          // tokens that each held, the mean
  double bytes = 0, flops = 0;                 // of a step that decodes so many
  double bandwidth = 0, flops_per_second = 0;  // of the server's machine, for that many bytes
  FloorFigure ttft;                            // one mean prompt alone, against the median
  FloorFigure tpot;                            // that step, against the median
  FloorFigure duration;                        // all prompts and all such steps, one after another, against the run
};

struct LoadReport {
  std::string model, fingerprint;                            // as the server names them
  std::string server_version, server_commit, server_device;  // of the server; empty if it does not say
  int64_t completed = 0, failed = 0;
  double duration = 0;  // seconds, first request sent to last event
  int64_t prompt_tokens = 0, output_tokens = 0;
  double requests_per_s = 0, output_tokens_per_s = 0, total_tokens_per_s = 0;
  int64_t peak_concurrency = 0;
  double decoding_s = 0;          // from first to last output, all requests together
  std::optional<double> goodput;  // good requests per second
  Distribution ttft, tpot, itl, e2el;
  Distribution first_text, per_token_from_text, per_token_with_first;  // the other conventions
  std::optional<LoadFloors> floors;
  std::string server_error;         // why the server did not say what it is; empty: it did
  std::vector<std::string> errors;  // distinct, at most five
};

// The value below which `percent` of `values` lie, by linear interpolation between neighbours (numpy's default); 0 for
// none. REQUIRES: values ascending, 0 <= percent <= 100.
double Percentile(const std::vector<double>& values, double percent);
// Standard deviation of the population, as numpy's.
Distribution Summarize(std::vector<double> values);
LoadReport MakeReport(const std::vector<RequestRecord>& records, const Goals& goals);

}  // namespace statehouse::cli
