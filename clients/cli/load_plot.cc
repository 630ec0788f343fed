#include "clients/cli/load_plot.h"

#include <algorithm>

namespace statehouse::cli {
namespace {

constexpr double kLeastMs = 1e-3;  // a logarithmic axis has no 0

PlotCurve Curve(const char* name, const Distribution& distribution) {
  PlotCurve curve{.name = name, .points = {}};
  for (size_t percent = 0; percent < distribution.percentiles.size(); ++percent) {
    const double ms = std::max(kLeastMs, distribution.percentiles[percent] * 1e3);
    curve.points.emplace_back(ms, static_cast<double>(percent));
  }
  return curve;
}

// An upright line.
PlotCurve Floor(const char* name, double seconds) {
  const double ms = std::max(kLeastMs, seconds * 1e3);
  return {.name = name, .points = {{ms, 0}, {ms, 100}}, .dashed = true};
}

}  // namespace

std::vector<PlotArea> LoadPlot(const LoadReport& report) {
  PlotArea requests = {"Requests",
                       "milliseconds",
                       "requests below, %",
                       {Curve("time to first token", report.ttft), Curve("end to end", report.e2el)}};
  PlotArea tokens = {"Output tokens",
                     "milliseconds",
                     "below, %",
                     {Curve("time per output token", report.tpot), Curve("inter-token latency", report.itl)}};
  if (report.floors) {
    requests.curves.push_back(Floor("floor of one prompt", report.floors->ttft.floor));
    tokens.curves.push_back(Floor("floor of a step", report.floors->tpot.floor));
  }
  return {std::move(requests), std::move(tokens)};
}

}  // namespace statehouse::cli
