// What is said of a call when it has ended: a log line and a count. Thread-safety: one thread at a time.
#pragma once

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"
#include "server/call_environment.h"
#include "server/call_info.h"

namespace statehouse {

struct CallRecord {
  const CallEnvironment* environment;
  const char* method;  // for log and metrics
  absl::Time start = absl::Now();
  CallInfo info = {};

  // Once. Returns the status for the wire.
  grpc::Status Conclude(const absl::Status& status) const;
};

}  // namespace statehouse
