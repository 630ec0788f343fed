// TLS from PEM files, or none. Thread-safety: a function without state.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "grpcpp/security/server_credentials.h"
#include "server/grpc_server.h"

namespace statehouse {

// The certificate files are read again while the server runs, so renewed ones need no restart. INVALID_ARGUMENT names
// the flag.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(const ListenOptions& options);

}  // namespace statehouse
