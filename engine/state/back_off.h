// When something that failed may be tried again: after a pause that doubles with each failure. Thread-safety: guarded
// by its owner.
#pragma once

#include <algorithm>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace statehouse {

class BackOff {
 public:
  BackOff(absl::Duration first, absl::Duration longest) : first_(first), longest_(longest) {}

  void Succeeded() {
    pause_ = absl::ZeroDuration();
    why_ = absl::OkStatus();
    until_ = absl::InfinitePast();
  }
  void Failed(absl::Time now, const absl::Status& why) {
    // Calls that were under way together count as one failure.
    if (now < until_) return;
    pause_ = pause_ == absl::ZeroDuration() ? first_ : std::min(longest_, pause_ * 2);
    until_ = now + pause_;
    why_ = why;
  }
  bool MayTry(absl::Time now) const { return now >= until_; }
  absl::Time until() const { return until_; }
  // OK unless the last try failed.
  const absl::Status& why() const { return why_; }
  // "<why>; tried again in 3s".
  std::string Describe(absl::Time now) const {
    const absl::Duration left = absl::Trunc(std::max(absl::ZeroDuration(), until_ - now), absl::Milliseconds(1));
    return absl::StrCat(why_.message(), "; tried again in ", absl::FormatDuration(left));
  }

 private:
  const absl::Duration first_;
  const absl::Duration longest_;
  absl::Duration pause_ = absl::ZeroDuration();
  absl::Time until_ = absl::InfinitePast();
  absl::Status why_;
};

}  // namespace statehouse
