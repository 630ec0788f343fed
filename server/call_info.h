// What a call's metadata says: its id, who makes it, until when. Thread-safety: functions without state.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "server/auth.h"

namespace statehouse {

struct CallInfo {
  std::string request_id;  // `x-request-id`, else one of our own
  std::string principal;   // "" is the anonymous one
  absl::Time deadline = absl::InfiniteFuture();
};

inline constexpr int kMaxRequestIdBytes = 128;

// Reads the metadata and echoes `x-request-id`. UNAUTHENTICATED; INVALID_ARGUMENT for an id that is not 1 to 128
// printable ASCII characters without spaces. `info` is filled as far as it goes, for the log.
absl::Status ReadCallInfo(grpc::CallbackServerContext* context, const Authenticator& auth, CallInfo* info);

}  // namespace statehouse
