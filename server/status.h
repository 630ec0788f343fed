// absl::Status as a gRPC status: the one place where errors of ours become errors of the wire.
//
// The code is the same. INVALID_ARGUMENT with a field becomes google.rpc.BadRequest, a retry hint google.rpc.RetryInfo,
// both in the trailing metadata `grpc-status-details-bin`. Thread-safety: functions without state.
#pragma once

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace statehouse {

// Longest message in bytes: code, message and details must fit in 8 KiB of trailing metadata, percent-encoded.
inline constexpr int kMaxErrorMessageBytes = 1000;

grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace statehouse
