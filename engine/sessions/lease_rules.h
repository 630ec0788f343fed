// Who may write to a session that servers share, in one place for all shared archives. Thread-safety: free functions.
#pragma once

#include <algorithm>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "engine/errors.h"
#include "engine/sessions/session_archive.h"

namespace statehouse {

// ABORTED: somebody else holds the lease, for `left` more.
inline absl::Status LeaseHeld(const std::string& owner, absl::Duration left) {
  return Busy(absl::StrCat("the session is in use on server \"", owner, "\""),
              absl::Ceil(std::max(left, absl::Milliseconds(1)), absl::Milliseconds(1)));
}

// ABORTED: the lease with this fencing token is not the newest.
inline absl::Status LeaseLost(int64_t fence, const std::string& owner, int64_t newest) {
  return absl::AbortedError(absl::StrCat("the lease was lost: its fencing token is ", fence, ", the newest is ", newest,
                                         owner.empty() ? std::string() : absl::StrCat(" (\"", owner, "\")"),
                                         "; the session has to be read again"));
}

// ABORTED: the caller did not know the last record.
inline absl::Status NotTheLast(int64_t expected, int64_t last) {
  return absl::AbortedError(absl::StrCat("record ", last, " is the last, not ", expected,
                                         ": another server appended first; the session has to be read again"));
}

// OK if `fence` is the newest lease's and that one has not run out, or if no lease was ever given and `fence` is 0.
inline absl::Status MayWrite(int64_t fence, const SessionLease& newest, absl::Time now) {
  if (fence != newest.fence || (fence != 0 && newest.owner.empty())) {
    return LeaseLost(fence, newest.owner, newest.fence);
  }
  if (fence != 0 && now >= newest.expires) {
    return absl::AbortedError(absl::StrCat("the lease ran out ", absl::FormatDuration(now - newest.expires),
                                           " ago; the session has to be read again"));
  }
  return absl::OkStatus();
}

}  // namespace statehouse
