#include "server/commands/load_progress.h"

#include <unistd.h>

#include <cstdio>
#include <string>

#include "absl/time/clock.h"
#include "server/commands/figures.h"

namespace statehouse {
namespace {

constexpr int kBarWidth = 30;
constexpr absl::Duration kBetweenLines = absl::Seconds(3);

}  // namespace

LoadProgress::LoadProgress(Log* log)
    : log_(log),
      bar_(log->format() == Log::Format::kText && isatty(STDERR_FILENO) != 0),
      next_line_(absl::Now() + kBetweenLines) {}

void LoadProgress::Show(int64_t done_bytes, int64_t all_bytes) {
  const int percent =
      all_bytes <= 0 ? 100 : static_cast<int>(100.0 * static_cast<double>(done_bytes) / static_cast<double>(all_bytes));
  if (percent == last_percent_) return;
  last_percent_ = percent;
  if (!bar_) {
    if (absl::Now() < next_line_) return;
    next_line_ = absl::Now() + kBetweenLines;
    log_->Info("loading", {{"percent", int64_t{percent}}, {"bytes", done_bytes}, {"of", all_bytes}});
    return;
  }
  std::string bar(kBarWidth * percent / 100, '=');
  bar.resize(kBarWidth, ' ');
  std::fprintf(stderr, "\rloading [%s] %3d %% of %s ", bar.c_str(), percent,
               WithPrefix(static_cast<double>(all_bytes), "B").c_str());
  std::fflush(stderr);
  shown_ = true;
}

void LoadProgress::Clear() {
  if (!shown_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  shown_ = false;
}

}  // namespace statehouse
