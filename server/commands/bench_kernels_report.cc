#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "server/commands/bench_kernels.h"
#include "server/commands/bench_origin.h"
#include "server/commands/figures.h"
#include "server/commands/svg_plot.h"

namespace statehouse {
namespace {

using Json = nlohmann::ordered_json;
using kernels::bench::Pass;

struct Rates {
  double flops = 0, bytes = 0;              // per second
  double flops_share = 0, bytes_share = 0;  // of the ceilings; 0: there is none
};

Rates RatesOf(const KernelsBenchReport& report, const KernelsBenchFigure& it) {
  Rates out = {it.flops / it.figure.median, it.bytes / it.figure.median, 0, 0};
  if (report.ceilings.flops_per_s > 0) out.flops_share = out.flops / report.ceilings.flops_per_s;
  if (report.ceilings.bytes_per_s > 0) out.bytes_share = out.bytes / report.ceilings.bytes_per_s;
  return out;
}

// Decode is bound by bytes, everything else by arithmetic.
double Share(const KernelsBenchReport& report, const KernelsBenchFigure& it) {
  const Rates rates = RatesOf(report, it);
  return it.shape.pass == Pass::kDecode ? rates.bytes_share : rates.flops_share;
}

}  // namespace

std::string KernelsBenchHeading(const KernelsBenchReport& report) {
  std::string out = absl::StrFormat(
      "%s%s: %s %s, %s\n\n", report.ceilings.device, report.why.empty() ? "" : absl::StrCat(" (", report.why, ")"),
      WithPrefix(report.ceilings.bytes_per_s, "B/s"), report.device == "cuda" ? "copied" : "read",
      report.ceilings.flops_per_s > 0 ? WithPrefix(report.ceilings.flops_per_s, "FLOP/s") +
                                            (report.device == "cuda" ? " in bf16 matrix products" : " in registers")
                                      : "arithmetic not measured");
  absl::StrAppend(&out, absl::StrFormat("%-8s %-44s %8s %10s %10s %9s %6s %9s %6s %12s\n", "", "shape", "error",
                                        "median ms", "min ms", "TFLOP/s", "share", "GB/s", "share", "tokens/s"));
  return out;
}

std::string KernelsBenchLine(const KernelsBenchReport& report, const KernelsBenchFigure& it) {
  const Rates rates = RatesOf(report, it);
  return absl::StrFormat("%-8s %-44s %8.1e %10.4f %10.4f %9.3f %5.1f%% %9.1f %5.1f%% %12s\n", report.pass,
                         ShapeName(it.shape), it.figure.error, it.figure.median * 1e3, it.figure.min * 1e3,
                         rates.flops * 1e-12, rates.flops_share * 100, rates.bytes * 1e-9, rates.bytes_share * 100,
                         WithPrefix(it.tokens_per_s(), ""));
}

std::string KernelsBenchSummary(const KernelsBenchReport& report) {
  std::string out;
  for (const std::string& skipped : report.skipped) absl::StrAppend(&out, "left out: ", skipped, "\n");
  return out;
}

std::string KernelsBenchCsv(const KernelsBenchReport& report) {
  std::string out =
      "pass,device,batch,length,heads,kv_heads,head_dim,chunk,dtype,state_dtype,error,median_ms,min_ms,runs,tflop_per_"
      "s,"
      "flop_share,gb_per_s,byte_share,tokens_per_s\n";
  for (const KernelsBenchFigure& it : report.figures) {
    const Rates rates = RatesOf(report, it);
    absl::StrAppend(
        &out, absl::StrFormat("%s,%s,%d,%d,%d,%d,%d,%d,%s,%s,%.3e,%.6f,%.6f,%d,%.4f,%.4f,%.3f,%.4f,%.1f\n", report.pass,
                              report.device, it.shape.batch, it.shape.length, it.shape.heads_q, it.shape.heads_kv,
                              it.shape.head_dim, it.shape.chunk, NumberName(it.shape.dtype),
                              it.shape.pass == Pass::kDecode ? NumberName(it.shape.state_dtype) : "", it.figure.error,
                              it.figure.median * 1e3, it.figure.min * 1e3, it.figure.runs, rates.flops * 1e-12,
                              rates.flops_share, rates.bytes * 1e-9, rates.bytes_share, it.tokens_per_s()));
  }
  return out;
}

std::string KernelsBenchJson(const KernelsBenchReport& report) {
  Json figures = Json::array();
  for (const KernelsBenchFigure& it : report.figures) {
    const Rates rates = RatesOf(report, it);
    figures.push_back(
        {{"batch", it.shape.batch},
         {"length", it.shape.length},
         {"heads", it.shape.heads_q},
         {"kv_heads", it.shape.heads_kv},
         {"head_dim", it.shape.head_dim},
         {"chunk", it.shape.chunk},
         {"dtype", NumberName(it.shape.dtype)},
         {"state_dtype", it.shape.pass == Pass::kDecode ? Json(NumberName(it.shape.state_dtype)) : Json()},
         {"error", it.figure.error},
         {"median_s", it.figure.median},
         {"min_s", it.figure.min},
         {"runs", it.figure.runs},
         {"flops", it.flops},
         {"bytes", it.bytes},
         {"flops_per_s", rates.flops},
         {"flops_share", rates.flops_share},
         {"bytes_per_s", rates.bytes},
         {"bytes_share", rates.bytes_share},
         {"tokens_per_s", it.tokens_per_s()}});
  }
  Json json = BenchOrigin("kernels");
  json.update(
      Json{{"pass", report.pass},
           {"device", report.device},
           {"device_name", report.ceilings.device},
           {"ceilings", {{"bytes_per_s", report.ceilings.bytes_per_s}, {"flops_per_s", report.ceilings.flops_per_s}}},
           {"figures", std::move(figures)},
           {"skipped", report.skipped}});
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string KernelsBenchPlot(const KernelsBenchReport& report) {
  // One curve per shape but for its length.
  std::vector<std::string> names;
  std::map<std::string, std::pair<PlotSeries, PlotSeries>> curves;
  for (const KernelsBenchFigure& it : report.figures) {
    kernels::bench::RetentionCase shape = it.shape;
    shape.length = 1;
    const std::string name = absl::StrReplaceAll(ShapeName(shape), {{" t1 ", " "}});
    const auto [found, is_new] = curves.try_emplace(name, PlotSeries{name, {}}, PlotSeries{name, {}});
    if (is_new) names.push_back(name);
    const double length = static_cast<double>(it.shape.length);
    found->second.first.points.emplace_back(length, it.tokens_per_s());
    found->second.second.points.emplace_back(length, Share(report, it) * 100);
  }
  PlotPanel throughput = {.title = absl::StrCat(report.pass, ": throughput"),
                          .x_label = "context, tokens",
                          .y_label = "tokens per second",
                          .log_y = true};
  PlotPanel share = {.title = "Share of the measured ceiling", .x_label = "context, tokens", .y_label = "percent"};
  for (const std::string& name : names) {
    throughput.series.push_back(curves[name].first);
    share.series.push_back(curves[name].second);
  }
  return DrawSvg({throughput, share});
}

}  // namespace statehouse
