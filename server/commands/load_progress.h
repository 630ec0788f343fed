// How far a model has been loaded: a bar on a terminal; elsewhere a line now and then, and none if it takes no time.
// Thread-safety: one thread at a time.
#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "server/log.h"

namespace statehouse {

class LoadProgress {
 public:
  // `log` takes the lines where standard error is no terminal.
  explicit LoadProgress(Log* log);
  ~LoadProgress() { Clear(); }
  LoadProgress(const LoadProgress&) = delete;
  LoadProgress& operator=(const LoadProgress&) = delete;

  void Show(int64_t done_bytes, int64_t all_bytes);
  // Removes the bar.
  void Clear();

 private:
  Log* const log_;
  const bool bar_;
  int last_percent_ = -1;
  absl::Time next_line_;
  bool shown_ = false;
};

}  // namespace statehouse
