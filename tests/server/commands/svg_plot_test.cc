#include "server/commands/svg_plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <sstream>

namespace statehouse {
namespace {

using testing::HasSubstr;
using testing::Not;

// Every opened element is closed, in order.
void ExpectWellFormed(const std::string& svg) {
  std::vector<std::string> open;
  const std::regex tag("<(/?)([a-z]+)[^>]*?(/?)>");
  for (std::sregex_iterator it(svg.begin(), svg.end(), tag), end; it != end; ++it) {
    if ((*it)[3] == "/") continue;
    if ((*it)[1] == "/") {
      ASSERT_FALSE(open.empty());
      ASSERT_EQ(open.back(), (*it)[2]);
      open.pop_back();
    } else {
      open.push_back((*it)[2]);
    }
  }
  EXPECT_TRUE(open.empty());
}

// Numbers of the attribute `name` of all elements `tag`.
std::vector<double> Attributes(const std::string& svg, const std::string& tag, const std::string& name) {
  std::vector<double> values;
  const std::regex pattern("<" + tag + " [^>]*" + name + "=\"([-0-9.einfa]+)\"");
  for (std::sregex_iterator it(svg.begin(), svg.end(), pattern), end; it != end; ++it)
    values.push_back(std::stod((*it)[1]));
  return values;
}

TEST(DrawSvg, LinesOfTwoPanels_AreWellFormedAndInside) {
  const std::string svg = DrawSvg({{.title = "a < b & c",
                                    .x_label = "x",
                                    .y_label = "y",
                                    .series = {{"one", {{4096, 1}, {131072, 1.5}}}, {"two", {{4096, 0}}}}},
                                   {.title = "log",
                                    .x_label = "x",
                                    .y_label = "y",
                                    .log_y = true,
                                    .series = {{"s", {{1, 10}, {1e6, 3e9}}, true}}}});
  ExpectWellFormed(svg);
  EXPECT_THAT(svg, HasSubstr("a &lt; b &amp; c"));
  EXPECT_THAT(svg, HasSubstr("stroke-dasharray"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
  for (double x : Attributes(svg, "circle", "cx")) EXPECT_TRUE(x >= 0 && x <= 520) << x;
  for (double y : Attributes(svg, "circle", "cy")) EXPECT_TRUE(y >= 0 && y <= 380) << y;
}

TEST(DrawSvg, ARisingLine_RisesOnThePage) {
  const std::string svg = DrawSvg({{.title = "t", .series = {{"s", {{1, 1}, {10, 2}, {100, 3}}}}}});
  const std::vector<double> x = Attributes(svg, "circle", "cx"), y = Attributes(svg, "circle", "cy");
  ASSERT_EQ(x.size(), 3u);
  EXPECT_LT(x[0], x[1]);
  EXPECT_NEAR(x[1] - x[0], x[2] - x[1], 0.2) << "equal steps on a logarithmic axis";
  EXPECT_GT(y[0], y[1]) << "y grows downwards in SVG";
  EXPECT_GT(y[1], y[2]);
}

TEST(DrawSvg, NothingToShow_IsStillAnSvg) {
  ExpectWellFormed(DrawSvg({{.title = "empty", .series = {{"s", {}}}}}));
  ExpectWellFormed(DrawSvg({}));
}

}  // namespace
}  // namespace statehouse
