// Time as the engine sees it; tests move it by hand. Thread-safety: Now() may be called from any thread.
#pragma once

#include "absl/time/time.h"

namespace statehouse {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() = 0;
  static Clock* Real();
};

}  // namespace statehouse
