// How the figures of `statehouse bench` are shown.
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/commands/bench.h"
#include "server/commands/bench_origin.h"
#include "server/commands/figures.h"
#include "server/commands/svg_plot.h"

namespace statehouse {
namespace {

using Json = nlohmann::ordered_json;

Json FigureJson(const BenchFigure& figure) {
  return {{"phase", PhaseName(figure.phase)},
          {"context", figure.context},
          {"batch", figure.batch},
          {"rows_per_step", figure.rows},
          {"runs", figure.runs},
          {"step_median_s", figure.median},
          {"step_min_s", figure.min},
          {"step_mean_s", figure.mean},
          {"tokens_per_s", figure.tokens_per_s()},
          {"step_bytes", figure.bytes},
          {"step_flops", figure.flops},
          {"bandwidth_bytes_per_s", figure.bandwidth},
          {"floor_s", figure.floor},
          {"share_of_floor", figure.share()}};
}

// One series per batch size: time of a step against context.
std::vector<PlotSeries> DecodeSeries(const BenchReport& report) {
  std::map<int64_t, PlotSeries> by_batch;
  for (const BenchFigure& figure : report.figures) {
    if (figure.phase != BenchFigure::Phase::kDecode) continue;
    PlotSeries& series = by_batch[figure.batch];
    series.name = absl::StrFormat("batch %d", figure.batch);
    series.points.emplace_back(static_cast<double>(figure.context), figure.median * 1e3);
  }
  std::vector<PlotSeries> all;
  all.reserve(by_batch.size());
  for (auto& [batch, series] : by_batch) all.push_back(std::move(series));
  return all;
}

PlotSeries PrefillSeries(const BenchReport& report) {
  PlotSeries series;
  series.name = "prefill";
  for (const BenchFigure& figure : report.figures) {
    if (figure.phase != BenchFigure::Phase::kPrefill) continue;
    series.points.emplace_back(static_cast<double>(figure.context),
                               figure.median / static_cast<double>(figure.rows) * 1e6);
  }
  return series;
}

}  // namespace

std::string BenchHeading(const BenchReport& report) {
  std::string text = absl::StrFormat("%s: %s parameters, %s weights (%s), %d threads\n", report.model,
                                     WithPrefix(static_cast<double>(report.parameters), ""), report.dtype,
                                     WithPrefix(static_cast<double>(report.weight_bytes), "B"), report.threads);
  absl::StrAppend(
      &text, absl::StrFormat("this machine: %s read, %s in registers\n\n", WithPrefix(report.memory_bandwidth, "B/s"),
                             WithPrefix(report.fma_rate, "FLOP/s")));
  absl::StrAppend(&text, absl::StrFormat("%-8s %9s %6s %11s %12s %12s %12s %7s %6s\n", "", "context", "batch",
                                         "tokens/s", "ms/step", "ms min", "ms floor", "share", "runs"));
  return text;
}

std::string BenchLine(const BenchFigure& figure) {
  return absl::StrFormat("%-8s %9d %6d %11.1f %12.3f %12.3f %12.3f %6.0f%% %6d\n", PhaseName(figure.phase),
                         figure.context, figure.batch, figure.tokens_per_s(), figure.median * 1e3, figure.min * 1e3,
                         figure.floor * 1e3, figure.share() * 100, figure.runs);
}

std::string BenchSummary(const BenchReport& report) {
  std::string text;
  if (!report.memory.empty()) {
    absl::StrAppend(&text, absl::StrFormat("\n%-8s %9s %16s %16s %22s\n", "memory", "context", "per sequence",
                                           "process", "a KV cache would hold"));
  }
  for (const MemoryFigure& figure : report.memory) {
    absl::StrAppend(&text, absl::StrFormat("%-8s %9d %16s %16s %22s\n", "", figure.context,
                                           WithPrefix(static_cast<double>(figure.slot_bytes), "B"),
                                           WithPrefix(static_cast<double>(figure.resident_bytes), "B"),
                                           WithPrefix(static_cast<double>(figure.kv_bytes), "B")));
  }
  if (report.interference) {
    const InterferenceFigure& figure = *report.interference;
    absl::StrAppend(&text,
                    absl::StrFormat("\n%d streams while a prompt of %d tokens is prefilled: gap between tokens p50 "
                                    "%.1f ms, p99 %.1f ms, max %.1f ms;\n"
                                    "a full step alone takes %.1f ms, so p99 is %.2f of it\n",
                                    figure.streams, figure.prompt_tokens, figure.gap_p50 * 1e3, figure.gap_p99 * 1e3,
                                    figure.gap_max * 1e3, figure.full_step * 1e3, figure.ratio()));
  }
  for (const std::string& skipped : report.skipped) absl::StrAppend(&text, "left out: ", skipped, "\n");
  return text;
}

std::string BenchJson(const BenchReport& report, const BenchOptions& options) {
  Json figures = Json::array(), memory = Json::array();
  for (const BenchFigure& figure : report.figures) figures.push_back(FigureJson(figure));
  for (const MemoryFigure& figure : report.memory) {
    memory.push_back({{"context", figure.context},
                      {"slot_bytes", figure.slot_bytes},
                      {"resident_bytes", figure.resident_bytes},
                      {"kv_cache_bytes", figure.kv_bytes}});
  }
  Json interference = nullptr;
  if (report.interference) {
    interference = {{"streams", report.interference->streams},   {"prompt_tokens", report.interference->prompt_tokens},
                    {"gaps", report.interference->gaps},         {"full_step_s", report.interference->full_step},
                    {"gap_p50_s", report.interference->gap_p50}, {"gap_p99_s", report.interference->gap_p99},
                    {"gap_max_s", report.interference->gap_max}, {"p99_over_full_step", report.interference->ratio()}};
  }
  Json json = BenchOrigin("model");
  json.update(Json{
      {"model", report.model},
      {"dtype", report.dtype},
      {"threads", report.threads},
      {"parameters", report.parameters},
      {"weight_bytes", report.weight_bytes},
      {"step_weight_bytes", report.step_weight_bytes},
      {"switch_over", report.switch_over < 0 ? Json(nullptr) : Json(report.switch_over)},
      {"read_bandwidth_bytes_per_s", report.memory_bandwidth},
      {"fma_flops_per_s", report.fma_rate},
      {"options",
       {{"step_tokens", options.step_tokens}, {"min_runs", options.min_runs}, {"max_seconds", options.max_seconds}}},
      {"figures", std::move(figures)},
      {"memory", std::move(memory)},
      {"interference", std::move(interference)},
      {"skipped", report.skipped}});
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string BenchPlot(const BenchReport& report) {
  PlotPanel decode = {"Decode: time per step", "context, tokens", "milliseconds", false, DecodeSeries(report)};
  PlotPanel prefill = {"Prefill: time per token", "context, tokens", "microseconds", false, {PrefillSeries(report)}};
  PlotSeries state = {"one sequence here", {}, false}, kv_cache = {"KV cache of that shape, bf16", {}, true};
  for (const MemoryFigure& figure : report.memory) {
    state.points.emplace_back(static_cast<double>(figure.context), static_cast<double>(figure.slot_bytes));
    kv_cache.points.emplace_back(static_cast<double>(figure.context), static_cast<double>(figure.kv_bytes));
  }
  const PlotPanel memory = {"Memory of one sequence", "context, tokens", "bytes", true, {state, kv_cache}};
  return DrawSvg({decode, prefill, memory});
}

}  // namespace statehouse
