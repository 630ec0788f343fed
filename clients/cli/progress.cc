#include "clients/cli/progress.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_format.h"
#include "clients/cli/terminal.h"

namespace statehouse::cli {

Progress::Progress(std::FILE* out) : out_(out), is_terminal_(Terminal::Detect(fileno(out)).is_terminal()) {}

void Progress::Show(std::string_view what, int64_t done, int64_t total) {
  if (!is_terminal_) return;
  constexpr double kInterval_s = 0.1;
  const double now = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  if (shown_ && what == last_what_ && done < total && now - last_time_ < kInterval_s) return;
  last_time_ = now;
  last_what_ = std::string(what);
  std::fprintf(out_, "\r\033[K%s", ProgressLine(what, done, total).c_str());
  std::fflush(out_);
  shown_ = true;
}

void Progress::Clear() {
  if (!shown_) return;
  std::fputs("\r\033[K", out_);
  std::fflush(out_);
  shown_ = false;
}

std::string ProgressLine(std::string_view what, int64_t done, int64_t total) {
  if (total <= 0) return std::string(what);
  constexpr int kWidth = 24;
  const int filled = static_cast<int>(std::clamp<int64_t>(done, 0, total) * kWidth / total);
  return absl::StrFormat("%s [%s%s] %d/%d", what, std::string(filled, '='), std::string(kWidth - filled, ' '), done,
                         total);
}

}  // namespace statehouse::cli
