// How far a model has been loaded: a bar on a terminal, a line per tenth elsewhere. Thread-safety: one thread at a
// time.
#pragma once

#include <cstdint>

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
  bool shown_ = false;
};

}  // namespace statehouse
