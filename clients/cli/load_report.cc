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

void AddFloor(std::string* text, const char* name, const FloorFigure& figure, double unit, const char* unit_name) {
  absl::StrAppend(text, absl::StrFormat("%-30s %9.2f %9.2f %8.0f%%  %s\n", name, figure.floor * unit,
                                        figure.measured * unit, figure.share() * 100, unit_name));
}

std::string FloorText(const LoadFloors& floors) {
  std::string text =
      absl::StrFormat("\n%-30s %9s %9s %9s\n", "What the server's machine allows", "floor", "measured", "share");
  AddFloor(&text, "Time to first token, p50", floors.ttft, 1e3, "ms, a prompt alone");
  AddFloor(&text, "Time per output token, p50", floors.tpot, 1e3, "ms");
  AddFloor(&text, "Whole run", floors.duration, 1, "s");
  absl::StrAppend(&text, absl::StrFormat("A step of %.1f sequences of %.0f tokens reads %.1f MB and does %.2f GFLOP; "
                                         "the machine reads %.1f GB/s and does %.0f GFLOP/s.\n",
                                         floors.sequences, floors.context, floors.bytes * 1e-6, floors.flops * 1e-9,
                                         floors.bandwidth * 1e-9, floors.flops_per_second * 1e-9));
  return text;
}

Json FloorJson(const FloorFigure& figure) {
  return {{"floor_s", figure.floor}, {"measured_s", figure.measured}, {"share", figure.share()}};
}

Json FloorsJson(const std::optional<LoadFloors>& floors) {
  if (!floors) return nullptr;
  return {{"decoding_sequences", floors->sequences},
          {"context_tokens", floors->context},
          {"step_bytes", floors->bytes},
          {"step_flops", floors->flops},
          {"bandwidth_bytes_per_s", floors->bandwidth},
          {"flops_per_s", floors->flops_per_second},
          {"ttft_p50", FloorJson(floors->ttft)},
          {"tpot_p50", FloorJson(floors->tpot)},
          {"duration", FloorJson(floors->duration)}};
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
  AddDistribution(&text, "aiperf: time to first text", report.first_text);
  AddDistribution(&text, "aiperf: inter-token latency", report.per_token_from_text);
  AddDistribution(&text, "guidellm: time per token", report.per_token_with_first);
  if (report.floors) {
    absl::StrAppend(&text, FloorText(*report.floors));
  } else {
    absl::StrAppend(&text, "\nNo floors: ",
                    report.server_error.empty() ? "the server does not say what its machine can do.\n"
                                                : absl::StrCat("GetStatus failed: ", report.server_error, "\n"));
  }
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
                     {"server_error", report.server_error.empty() ? Json(nullptr) : Json(report.server_error)},
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
                     {"latency_after_first_text_per_token_s", DistributionJson(report.per_token_from_text)},
                     {"latency_per_output_token_s", DistributionJson(report.per_token_with_first)},
                     {"floors", FloorsJson(report.floors)},
                     {"errors", report.errors}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace statehouse::cli
