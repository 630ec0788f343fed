// The picture of a load benchmark: how many of its latencies were below what. Thread-safety: pure function.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "clients/cli/load_floor.h"
#include "clients/cli/load_metrics.h"

namespace statehouse::cli {

struct PlotCurve {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x > 0 ascending
  bool dashed = false;                            // computed, not measured
};

struct PlotArea {
  std::string title, x_label, y_label;
  std::vector<PlotCurve> curves;
};

// Draws areas side by side, x logarithmic, as SVG. The composition root brings it: `statehouse bench` draws so too.
using DrawPlot = std::function<std::string(const std::vector<PlotArea>&)>;

std::vector<PlotArea> LoadPlot(const LoadReport& report);

}  // namespace statehouse::cli
