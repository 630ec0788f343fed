// A clock that moves only when told to. Thread-safety: any thread.
#pragma once

#include <atomic>
#include <cstdint>

#include "absl/time/time.h"
#include "engine/clock.h"

namespace statehouse::testing {

class FakeClock final : public Clock {
 public:
  absl::Time Now() override { return absl::FromUnixNanos(nanoseconds_.load()); }
  void Advance(absl::Duration by) { nanoseconds_.fetch_add(absl::ToInt64Nanoseconds(by)); }

 private:
  std::atomic<int64_t> nanoseconds_{absl::ToUnixNanos(absl::FromUnixSeconds(1'000'000'000))};
};

}  // namespace statehouse::testing
