#include "clients/cli/terminal.h"

#include <gtest/gtest.h>

#include "clients/cli/progress.h"

namespace statehouse::cli {
namespace {

TEST(Terminal, Pipe_GetsPlainText) {
  const Terminal pipe(/*is_terminal=*/false, /*has_colour=*/true);
  EXPECT_EQ(pipe.Paint(Style::kRed, "x"), "x");
  EXPECT_EQ(pipe.Harmless("\033[2J"), "\033[2J");
}

TEST(Terminal, TextOfAModel_CannotSteerIt) {
  const Terminal terminal(true, true);
  EXPECT_EQ(terminal.Harmless("a\033[2Jb\a\tc\n"), "a\uFFFD[2Jb\uFFFD\tc\n");
  EXPECT_EQ(terminal.Harmless("\xC2\x9B"
                              "31m"),
            "\uFFFD31m")
      << "the one-character form of ESC [";
  EXPECT_EQ(terminal.Harmless("naïve 日本 \xC2\xA0"), "naïve 日本 \xC2\xA0");
  EXPECT_EQ(terminal.Paint(Style::kRed, "x"), "\033[31mx\033[0m");
  EXPECT_EQ(Terminal(true, false).Paint(Style::kRed, "x"), "x");
}

TEST(FormatBytes, AnySize_HasThreeDigitsAndADecimalUnit) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(999), "999 B");
  EXPECT_EQ(FormatBytes(2'097'152), "2.10 MB");
  EXPECT_EQ(FormatBytes(255.6e6), "256 MB");
  EXPECT_EQ(FormatBytes(999.9e6), "1.00 GB");
  EXPECT_EQ(FormatBytes(31e9), "31.0 GB");
}

TEST(FormatSeconds, AnyDuration_HasItsUnit) {
  EXPECT_EQ(FormatSeconds(12.3e-6), "12.3 µs");
  EXPECT_EQ(FormatSeconds(0.25), "250 ms");
  EXPECT_EQ(FormatSeconds(0.9999), "1.00 s");
  EXPECT_EQ(FormatSeconds(75), "75.0 s");
}

TEST(ProgressLine, HalfWay_HasHalfABar) {
  EXPECT_EQ(ProgressLine("requests", 5, 10), "requests [============            ] 5/10");
  EXPECT_EQ(ProgressLine("loading", 0, 0), "loading");
  EXPECT_EQ(ProgressLine("x", 12, 10), "x [========================] 12/10");
}

}  // namespace
}  // namespace statehouse::cli
