// What a client shows and trusts: TLS files and the token, checked before anything is sent. Thread-safety: functions
// without state.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "absl/status/statusor.h"
#include "clients/cli/connection.h"

namespace statehouse::cli {

bool SpeaksTls(const ConnectionOptions& options);

// INVALID_ARGUMENT names the flag of a file that does not hold what it should, of a key that is not its certificate's,
// of a token that metadata cannot hold (without showing it) or that others could read on the way; else the system's
// error, with flag and file.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(const ConnectionOptions& options);

}  // namespace statehouse::cli
