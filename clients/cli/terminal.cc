#include "clients/cli/terminal.h"

#include <unistd.h>

#include <array>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace statehouse::cli {
namespace {

const char* Code(Style style) {
  switch (style) {
    case Style::kPlain:
      return "";
    case Style::kBold:
      return "\033[1m";
    case Style::kDim:
      return "\033[2m";
    case Style::kRed:
      return "\033[31m";
    case Style::kGreen:
      return "\033[32m";
    case Style::kCyan:
      return "\033[36m";
  }
  return "";
}

// Three significant digits, but never an exponent.
std::string ThreeDigits(double value) {
  const int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return absl::StrFormat("%.*f", decimals, value);
}

}  // namespace

Terminal Terminal::Detect(int fd) {
  const char* no_colour = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  const bool wanted = no_colour == nullptr || *no_colour == '\0';
  const bool able = term != nullptr && std::string_view(term) != "dumb";
  return Terminal(isatty(fd) == 1, wanted && able);
}

std::string Terminal::Paint(Style style, std::string_view text) const {
  if (!has_colour_ || style == Style::kPlain || text.empty()) return std::string(text);
  std::string painted = Code(style);
  painted.append(text);
  painted.append("\033[0m");
  return painted;
}

std::string Terminal::Harmless(std::string_view text) const {
  if (!is_terminal_) return std::string(text);
  std::string shown;
  shown.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0;
    const bool is_c1 = byte == 0xC2 && next >= 0x80 && next < 0xA0;  // U+0080 … U+009F in UTF-8
    if (is_c1 || byte == 0x7F || (byte < 0x20 && byte != '\n' && byte != '\t')) {
      shown += "\uFFFD";
      if (is_c1) ++i;
    } else {
      shown += text[i];
    }
  }
  return shown;
}

std::string FormatBytes(double bytes) {
  static constexpr std::array<const char*, 5> kUnits = {"kB", "MB", "GB", "TB", "PB"};
  if (bytes < 1000) return absl::StrFormat("%.0f B", bytes);
  size_t unit = 0;
  for (bytes /= 1000; bytes >= 999.5 && unit + 1 < kUnits.size(); ++unit) bytes /= 1000;
  return absl::StrCat(ThreeDigits(bytes), " ", kUnits[unit]);
}

std::string FormatSeconds(double seconds) {
  if (seconds < 0.9995e-3) return absl::StrCat(ThreeDigits(seconds * 1e6), " µs");
  if (seconds < 0.9995) return absl::StrCat(ThreeDigits(seconds * 1e3), " ms");
  return absl::StrCat(ThreeDigits(seconds), " s");
}

}  // namespace statehouse::cli
