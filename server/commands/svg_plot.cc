#include "server/commands/svg_plot.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "server/commands/figures.h"

namespace statehouse {
namespace {

constexpr double kPanelWidth = 520, kPanelHeight = 380;
constexpr double kLeft = 78, kRight = 20, kTop = 44, kBottom = 56;
// Distinct for people with any colour vision, on white.
constexpr std::array<const char*, 6> kColours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#000000"};

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}});
}

// Maps [low, high] of one axis to pixels.
struct Axis {
  double low = 0, high = 1, from = 0, to = 1;
  bool log = false;
  double Pixel(double value) const {
    const auto warp = [&](double v) { return log ? std::log10(v) : v; };
    return from + (warp(value) - warp(low)) / (warp(high) - warp(low)) * (to - from);
  }
  std::vector<double> Ticks() const {
    std::vector<double> ticks;
    if (log) {
      for (double decade = std::pow(10, std::floor(std::log10(low))); decade <= high * 1.0001; decade *= 10) {
        if (decade >= low * 0.9999) ticks.push_back(decade);
      }
      return ticks;
    }
    const double magnitude = std::pow(10, std::floor(std::log10(high - low)));
    const double share = (high - low) / magnitude;
    const double step = share > 5 ? magnitude : share > 2 ? magnitude / 2 : magnitude / 5;
    for (double tick = low; tick <= high * 1.0001; tick += step) ticks.push_back(tick);
    return ticks;
  }
};

std::string Text(double x, double y, const char* anchor, const std::string& text, const char* more = "") {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>%s</text>\n", x, y, anchor, more,
                         Escaped(text));
}

std::string Line(double x1, double y1, double x2, double y2, const char* style) {
  return absl::StrFormat("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1, y1, x2, y2, style);
}

std::pair<Axis, Axis> MakeAxes(const PlotPanel& panel) {
  Axis x = {INFINITY, -INFINITY, kLeft, kPanelWidth - kRight, true};
  Axis y = {INFINITY, -INFINITY, kPanelHeight - kBottom, kTop, panel.log_y};
  for (const PlotSeries& series : panel.series) {
    for (const auto& [px, py] : series.points) {
      x.low = std::min(x.low, px), x.high = std::max(x.high, px);
      y.low = std::min(y.low, py), y.high = std::max(y.high, py);
    }
  }
  if (x.high <= x.low) x.low /= 2, x.high *= 2;
  if (panel.log_y) {
    y.low = std::pow(10, std::floor(std::log10(y.low)));
    y.high = std::pow(10, std::ceil(std::log10(y.high)));
    if (y.high <= y.low) y.high = y.low * 10;
  } else {
    y.low = 0;
    y.high = y.high > 0 ? y.high * 1.15 : 1;
  }
  return {x, y};
}

std::string DrawAxes(const PlotPanel& panel, const Axis& x, const Axis& y) {
  std::string out = Text((x.from + x.to) / 2, 22, "middle", panel.title, " font-weight=\"bold\"");
  for (double tick : y.Ticks()) {
    absl::StrAppend(&out, Line(x.from, y.Pixel(tick), x.to, y.Pixel(tick), "stroke=\"#ddd\""));
    absl::StrAppend(&out, Text(x.from - 6, y.Pixel(tick) + 4, "end", WithPrefix(tick, "")));
  }
  std::vector<double> marks;  // the contexts that were measured
  for (const PlotSeries& series : panel.series) {
    for (const auto& [px, py] : series.points) marks.push_back(px);
  }
  std::sort(marks.begin(), marks.end());
  double last_pixel = -INFINITY;
  for (double mark : marks) {
    if (x.Pixel(mark) - last_pixel < 44) continue;
    last_pixel = x.Pixel(mark);
    absl::StrAppend(&out, Line(last_pixel, y.from, last_pixel, y.from + 5, "stroke=\"#333\""));
    absl::StrAppend(&out, Text(last_pixel, y.from + 20, "middle", WithPrefix(mark, "")));
  }
  absl::StrAppend(&out, Line(x.from, y.from, x.to, y.from, "stroke=\"#333\""),
                  Line(x.from, y.from, x.from, y.to, "stroke=\"#333\""));
  absl::StrAppend(&out, Text((x.from + x.to) / 2, kPanelHeight - 12, "middle", panel.x_label));
  const double middle = (y.from + y.to) / 2;
  absl::StrAppend(&out, Text(16, middle, "middle", panel.y_label,
                             absl::StrFormat(" transform=\"rotate(-90 16 %.1f)\"", middle).c_str()));
  return out;
}

std::string DrawSeries(const PlotSeries& series, const char* colour, const Axis& x, const Axis& y) {
  std::string path, dots;
  for (const auto& [px, py] : series.points) {
    absl::StrAppend(&path, absl::StrFormat("%s%.1f %.1f", path.empty() ? "M" : " L", x.Pixel(px), y.Pixel(py)));
    if (!series.dashed) {
      absl::StrAppend(&dots, absl::StrFormat("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"%s\"/>\n", x.Pixel(px),
                                             y.Pixel(py), colour));
    }
  }
  return absl::StrFormat("<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s/>\n", path, colour,
                         series.dashed ? " stroke-dasharray=\"6 4\"" : "") +
         dots;
}

std::string DrawPanel(const PlotPanel& panel, double offset) {
  const auto [x, y] = MakeAxes(panel);
  std::string out = absl::StrFormat("<g transform=\"translate(%.0f 0)\">\n", offset) + DrawAxes(panel, x, y);
  for (size_t i = 0; i < panel.series.size(); ++i) {
    const char* colour = kColours[i % kColours.size()];
    absl::StrAppend(&out, DrawSeries(panel.series[i], colour, x, y));
    const double row = kTop + 8 + 17 * static_cast<double>(i);
    absl::StrAppend(&out, Line(x.from + 10, row - 4, x.from + 34, row - 4,
                               absl::StrFormat("stroke=\"%s\" stroke-width=\"2\"%s", colour,
                                               panel.series[i].dashed ? " stroke-dasharray=\"6 4\"" : "")
                                   .c_str()));
    absl::StrAppend(&out, Text(x.from + 40, row, "start", panel.series[i].name));
  }
  return out + "</g>\n";
}

}  // namespace

std::string DrawSvg(const std::vector<PlotPanel>& panels) {
  std::string body;
  double width = 0;
  for (PlotPanel panel : panels) {
    std::erase_if(panel.series, [](const PlotSeries& series) { return series.points.empty(); });
    if (panel.series.empty()) continue;
    absl::StrAppend(&body, DrawPanel(panel, width));
    width += kPanelWidth;
  }
  return absl::StrFormat(
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
             "font-family=\"sans-serif\" "
             "font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
             width, kPanelHeight, width) +
         body + "</svg>\n";
}

}  // namespace statehouse
