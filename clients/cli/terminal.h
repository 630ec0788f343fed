// What the terminal behind an output stream can show: colours and a width, or neither for a pipe and with NO_COLOR.
//
// Thread-safety: plain data after Detect().
#pragma once

#include <string>
#include <string_view>

namespace statehouse::cli {

enum class Style { kPlain, kBold, kDim, kRed, kGreen, kCyan };

class Terminal {
 public:
  Terminal() = default;
  Terminal(bool is_terminal, bool has_colour) : is_terminal_(is_terminal), has_colour_(is_terminal && has_colour) {}
  // Looks at file descriptor `fd`. Colours need a terminal, a TERM other than "dumb", and no NO_COLOR.
  static Terminal Detect(int fd);

  bool is_terminal() const { return is_terminal_; }
  bool has_colour() const { return has_colour_; }
  // `text` in that style; as it is where there are no colours.
  std::string Paint(Style style, std::string_view text) const;
  // Text of a model or a server, with the control characters that would steer a terminal shown as U+FFFD; as it is for
  // a pipe. Newlines and tabs stay.
  std::string Harmless(std::string_view text) const;

 private:
  bool is_terminal_ = false;
  bool has_colour_ = false;
};

// "12.6 MB": decimal units, three significant digits.
std::string FormatBytes(double bytes);
// "840 µs", "1.24 s".
std::string FormatSeconds(double seconds);

}  // namespace statehouse::cli
