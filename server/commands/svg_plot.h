// A small line plot as SVG: panels side by side, logarithmic x, linear or logarithmic y, a legend each.
//
// Thread-safety: functions without state.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace statehouse {

struct PlotSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x > 0 ascending
  bool dashed = false;                            // for what was computed and not measured
};

struct PlotPanel {
  std::string title = {};
  std::string x_label = {};
  std::string y_label = {};
  bool log_y = false;  // then all y > 0; else the axis begins at 0
  std::vector<PlotSeries> series = {};
};

// Panels without a point are left out. Text is escaped.
std::string DrawSvg(const std::vector<PlotPanel>& panels);

}  // namespace statehouse
