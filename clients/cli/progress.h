// One line on a terminal that says how far long work has come; nothing at all elsewhere.
//
//   Progress progress(stderr);
//   progress.Show("requests", 17, 100);   // requests [====                ] 17/100
//
// Thread-safety: one thread at a time.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace statehouse::cli {

class Progress {
 public:
  explicit Progress(std::FILE* out);
  ~Progress() { Clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Redraws at most ten times a second, and always at the end. `total` 0: no bar, only the words.
  void Show(std::string_view what, int64_t done, int64_t total);
  // Takes the line away, so that other output can follow.
  void Clear();

 private:
  std::FILE* out_;
  const bool is_terminal_;
  bool shown_ = false;
  std::string last_what_;
  double last_time_ = 0;
};

// The line without its colours and control characters.
std::string ProgressLine(std::string_view what, int64_t done, int64_t total);

}  // namespace statehouse::cli
