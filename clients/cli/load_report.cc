// How the figures of a load benchmark are shown.
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "clients/cli/load_bench.h"

namespace statehouse::cli {
namespace {

using Json = nlohmann::ordered_json;

void AddRow(std::string* text, const char* name, const std::string& value) {
  absl::StrAppend(text, absl::StrFormat("%-36s %14s\n", name, value));
}

void AddDistribution(std::string* text, const char* name, const Distribution& d) {
  absl::StrAppend(text, absl::StrFormat("%-30s %9.2f %9.2f %9.2f %9.2f %9.2f\n", name, d.mean * 1e3, d.p50 * 1e3,
                                        d.p90 * 1e3, d.p99 * 1e3, d.max * 1e3));
}

Json DistributionJson(const Distribution& d) {
  return {{"count", d.count}, {"mean", d.mean}, {"stddev", d.stddev}, {"min", d.min},
          {"p50", d.p50},     {"p90", d.p90},   {"p99", d.p99},       {"max", d.max}};
}

Json GoalJson(const std::optional<double>& goal) { return goal ? Json(*goal) : Json(nullptr); }

}  // namespace

std::string LoadReportText(const LoadOptions& options, const LoadReport& report) {
  std::string text;
  AddRow(&text, "Successful requests", absl::StrCat(report.completed));
  AddRow(&text, "Failed requests", absl::StrCat(report.failed));
  AddRow(&text, "Peak concurrency", absl::StrCat(report.peak_concurrency));
  AddRow(&text, "Duration (s)", absl::StrFormat("%.2f", report.duration));
  AddRow(&text, "Input tokens", absl::StrCat(report.prompt_tokens));
  AddRow(&text, "Output tokens", absl::StrCat(report.output_tokens));
  AddRow(&text, "Request throughput (req/s)", absl::StrFormat("%.2f", report.requests_per_s));
  if (report.goodput) AddRow(&text, "Request goodput (req/s)", absl::StrFormat("%.2f", *report.goodput));
  AddRow(&text, "Output token throughput (tok/s)", absl::StrFormat("%.1f", report.output_tokens_per_s));
  AddRow(&text, "Total token throughput (tok/s)", absl::StrFormat("%.1f", report.total_tokens_per_s));
  absl::StrAppend(&text,
                  absl::StrFormat("\n%-30s %9s %9s %9s %9s %9s\n", "Milliseconds", "mean", "p50", "p90", "p99", "max"));
  AddDistribution(&text, "Time to first token", report.ttft);
  AddDistribution(&text, "Time per output token", report.tpot);
  AddDistribution(&text, "Inter-token latency", report.itl);
  AddDistribution(&text, "End-to-end latency", report.e2el);
  AddDistribution(&text, "First non-empty text", report.first_text);
  AddDistribution(&text, "Latency / output tokens", report.per_token_with_first);
  for (const std::string& error : report.errors) absl::StrAppend(&text, "failed: ", error, "\n");
  return text;
}

std::string LoadReportJson(const LoadOptions& options, const LoadReport& report) {
  const Json json = {{"benchmark", "load"},
                     {"model", report.model},
                     {"fingerprint", report.fingerprint},
                     {"server_version", report.server_version},
                     {"server_commit", report.server_commit},
                     {"server_device", report.server_device},
                     {"date", absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone())},
                     {"options",
                      {{"num_prompts", options.num_prompts},
                       {"request_rate", options.request_rate},
                       {"burstiness", options.burstiness},
                       {"max_concurrency", options.max_concurrency},
                       {"input_len", options.input_len},
                       {"output_len", options.output_len},
                       {"range_ratio", options.range_ratio},
                       {"num_warmups", options.num_warmups},
                       {"random_seed", options.random_seed},
                       {"goodput",
                        {{"ttft_ms", GoalJson(options.goals.ttft_ms)},
                         {"tpot_ms", GoalJson(options.goals.tpot_ms)},
                         {"e2el_ms", GoalJson(options.goals.e2el_ms)}}}}},
                     {"completed", report.completed},
                     {"failed", report.failed},
                     {"peak_concurrency", report.peak_concurrency},
                     {"duration_s", report.duration},
                     {"prompt_tokens", report.prompt_tokens},
                     {"output_tokens", report.output_tokens},
                     {"requests_per_s", report.requests_per_s},
                     {"goodput_requests_per_s", GoalJson(report.goodput)},
                     {"output_tokens_per_s", report.output_tokens_per_s},
                     {"total_tokens_per_s", report.total_tokens_per_s},
                     {"ttft_s", DistributionJson(report.ttft)},
                     {"tpot_s", DistributionJson(report.tpot)},
                     {"itl_s", DistributionJson(report.itl)},
                     {"e2el_s", DistributionJson(report.e2el)},
                     {"first_text_s", DistributionJson(report.first_text)},
                     {"latency_per_output_token_s", DistributionJson(report.per_token_with_first)},
                     {"errors", report.errors}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace statehouse::cli
