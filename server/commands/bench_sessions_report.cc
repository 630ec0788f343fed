// How the figures of `statehouse bench sessions` are shown.
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/commands/bench_origin.h"
#include "server/commands/bench_sessions.h"
#include "server/commands/figures.h"
#include "server/commands/svg_plot.h"

namespace statehouse {
namespace {

using Json = nlohmann::ordered_json;

std::string Bytes(int64_t bytes) { return WithPrefix(static_cast<double>(bytes), "B"); }

void AddMoves(const SessionsBenchReport& report, std::string* text) {
  absl::StrAppendFormat(text, "%-8s %-6s %9s %10s %11s %11s %12s %12s %7s %6s\n", "move", "tier", "context", "size",
                        "ms", "ms min", "rate", "tier's rate", "share", "runs");
  for (const MoveFigure& figure : report.moves) {
    absl::StrAppendFormat(text, "%-8s %-6s %9d %10s %11.3f %11.3f %12s %12s %6.0f%% %6d\n", figure.move, figure.tier,
                          figure.context, Bytes(figure.bytes), figure.median * 1e3, figure.min * 1e3,
                          WithPrefix(figure.rate(), "B/s"), WithPrefix(figure.ceiling, "B/s"), figure.share() * 100,
                          figure.runs);
  }
}

// How much longer a move takes at the longest context than at the first one past twice the switch-over.
void AddGrowth(const SessionsBenchReport& report, std::string* text) {
  if (report.switch_over < 0 || report.moves.empty()) return;
  const int64_t longest = report.moves.back().context;
  std::map<std::string, const MoveFigure*> first;
  std::string line;
  for (const MoveFigure& figure : report.moves) {
    if (figure.context < std::max<int64_t>(1, 2 * report.switch_over)) continue;
    const auto [known, is_first] = first.try_emplace(absl::StrCat(figure.move, " ", figure.tier), &figure);
    if (is_first || figure.context != longest) continue;
    if (line.empty()) {
      line = absl::StrFormat("\ntime at %d tokens against %d:", longest, known->second->context);
    }
    absl::StrAppendFormat(&line, " %s %.2fx", known->first, figure.median / known->second->median);
  }
  if (!line.empty()) absl::StrAppend(text, line, "\n");
}

void AddFirstTokens(const SessionsBenchReport& report, std::string* text) {
  if (report.first_tokens.empty()) return;
  absl::StrAppendFormat(text, "\n%-12s %9s %13s %13s %13s %9s\n", "first token", "context", "prefilled", "from host",
                        "from disk", "ratio");
  for (const FirstTokenFigure& figure : report.first_tokens) {
    absl::StrAppendFormat(text, "%-12s %9d %11.1f ms %10.2f ms %13s %8.0fx\n", "", figure.context, figure.prefill * 1e3,
                          figure.host * 1e3,
                          figure.disk > 0 ? absl::StrFormat("%.2f ms", figure.disk * 1e3) : std::string("-"),
                          figure.host > 0 ? figure.prefill / figure.host : 0.0);
  }
}

void AddWorkloads(const SessionsBenchReport& report, std::string* text) {
  if (report.workloads.empty()) return;
  absl::StrAppendFormat(text, "\n%-16s %-20s %9s %14s %9s %14s %14s\n", "workload", "", "requests", "prompt tokens",
                        "restored", "TTFT p50", "TTFT p95");
  for (const WorkloadFigure& figure : report.workloads) {
    absl::StrAppendFormat(text, "%-16s %-20s %9d %14d %8.1f%% %11.1f ms %11.1f ms\n", figure.name, figure.policy,
                          figure.requests, figure.prompt_tokens, figure.hit_rate() * 100, figure.first_token_p50 * 1e3,
                          figure.first_token_p95 * 1e3);
  }
}

Json MoveJson(const MoveFigure& figure) {
  return {{"move", figure.move},
          {"tier", figure.tier},
          {"context", figure.context},
          {"bytes", figure.bytes},
          {"runs", figure.runs},
          {"median_s", figure.median},
          {"min_s", figure.min},
          {"bytes_per_s", figure.rate()},
          {"tier_bytes_per_s", figure.ceiling},
          {"share_of_tier", figure.share()}};
}

Json WorkloadJson(const WorkloadFigure& figure) {
  return {{"workload", figure.name},
          {"policy", figure.policy},
          {"requests", figure.requests},
          {"prompt_tokens", figure.prompt_tokens},
          {"cached_tokens", figure.cached_tokens},
          {"hit_rate", figure.hit_rate()},
          {"ttft_p50_s", figure.first_token_p50},
          {"ttft_p95_s", figure.first_token_p95}};
}

}  // namespace

std::string SessionsBenchText(const SessionsBenchReport& report) {
  std::string text = absl::StrFormat(
      "%s (%s, %s): one sequence takes %s, at any length%s\n\n", report.model, report.dtype, report.device,
      Bytes(report.slot_bytes),
      report.switch_over < 0
          ? std::string()
          : absl::StrFormat("; below %s tokens a snapshot holds what there is", Tokens(report.switch_over)));
  if (report.made_up_states) absl::StrAppend(&text, "states hold numbers that nobody computed: moves only\n\n");
  if (!report.why_ordinary.empty()) {
    absl::StrAppend(&text, "moves go through ordinary memory, no more could be page-locked: ", report.why_ordinary,
                    "\n\n");
  }
  AddMoves(report, &text);
  AddGrowth(report, &text);
  AddFirstTokens(report, &text);
  AddWorkloads(report, &text);
  absl::StrAppend(&text, "\nmemory by purpose\n");
  for (const PurposeFigure& figure : report.memory) {
    absl::StrAppendFormat(&text, "  %-28s %10s\n", figure.purpose, Bytes(figure.bytes));
  }
  return text;
}

std::string SessionsBenchJson(const SessionsBenchReport& report, const SessionsBenchOptions& options) {
  Json moves = Json::array(), first_tokens = Json::array(), workloads = Json::array(), memory = Json::object();
  for (const MoveFigure& figure : report.moves) moves.push_back(MoveJson(figure));
  for (const FirstTokenFigure& figure : report.first_tokens) {
    first_tokens.push_back({{"context", figure.context},
                            {"prefilled_s", figure.prefill},
                            {"host_s", figure.host},
                            {"disk_s", figure.disk > 0 ? Json(figure.disk) : Json(nullptr)}});
  }
  for (const WorkloadFigure& figure : report.workloads) workloads.push_back(WorkloadJson(figure));
  for (const PurposeFigure& figure : report.memory) memory[figure.purpose] = figure.bytes;
  Json json = BenchOrigin("sessions");
  json.update(Json{{"model", report.model},
                   {"dtype", report.dtype},
                   {"device", report.device},
                   {"slot_bytes", report.slot_bytes},
                   {"switch_over", report.switch_over < 0 ? Json(nullptr) : Json(report.switch_over)},
                   {"made_up_states", report.made_up_states},
                   {"options",
                    {{"step_tokens", options.step_tokens},
                     {"min_runs", options.min_runs},
                     {"max_seconds", options.max_seconds},
                     {"cache_states", options.cache_states}}},
                   {"moves", std::move(moves)},
                   {"first_tokens", std::move(first_tokens)},
                   {"workloads", std::move(workloads)},
                   {"memory_bytes", std::move(memory)}});
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string SessionsBenchPlot(const SessionsBenchReport& report) {
  std::map<std::string, PlotSeries> by_move;
  for (const MoveFigure& figure : report.moves) {
    PlotSeries& series = by_move[absl::StrCat(figure.move, ", ", figure.tier)];
    series.name = absl::StrCat(figure.move, ", ", figure.tier);
    series.points.emplace_back(static_cast<double>(figure.context), figure.median * 1e3);
  }
  PlotPanel moves = {"Moves of a session", "context, tokens", "milliseconds", true, {}};
  for (auto& [name, series] : by_move) moves.series.push_back(std::move(series));
  PlotSeries prefilled = {"prefilled", {}, false}, host = {"restored from host", {}, false},
             disk = {"restored from disk", {}, false};
  for (const FirstTokenFigure& figure : report.first_tokens) {
    const double context = static_cast<double>(figure.context);
    prefilled.points.emplace_back(context, figure.prefill * 1e3);
    host.points.emplace_back(context, figure.host * 1e3);
    if (figure.disk > 0) disk.points.emplace_back(context, figure.disk * 1e3);
  }
  PlotPanel first = {"First token", "context, tokens", "milliseconds", true, {prefilled, host}};
  if (!disk.points.empty()) first.series.push_back(disk);
  return DrawSvg({moves, first});
}

}  // namespace statehouse
