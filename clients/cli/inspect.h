// The small commands that ask a server one thing: `status`, `models`, `tokenize`, `detokenize`, `cancel`, `health`.
//
// Each prints to `out`, as text or (json) as one JSON object, and returns OK or what went wrong. Thread-safety:
// stateless.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "clients/cli/connection.h"
#include "statehouse/v1/models.pb.h"

namespace statehouse::cli {

absl::Status ShowStatus(const Connection& connection, bool json, std::FILE* out);
absl::Status ShowModels(const Connection& connection, bool json, std::FILE* out);

struct TokenizeOptions {
  std::string model;  // empty: the only one
  bool add_special_tokens = true;
  bool parse_special_tokens = false;
  bool show_texts = false;  // a line per token with its text
};
absl::Status ShowTokens(const Connection& connection, const std::string& text, const TokenizeOptions& options,
                        bool json, std::FILE* out);
absl::Status ShowText(const Connection& connection, const std::string& model, const std::vector<int32_t>& token_ids,
                      bool show_special, bool json, std::FILE* out);
// NOT_FOUND if no such request is queued or running.
absl::Status CancelRequest(const Connection& connection, const std::string& request_id, std::FILE* out);
// Asks grpc.health.v1.Health for `service` ("" is the server as a whole). UNAVAILABLE unless it answers SERVING.
absl::Status CheckHealth(const Connection& connection, const std::string& service, std::FILE* out);

// What is served under `name` (empty: the only one).
absl::StatusOr<v1::Model> GetModel(const Connection& connection, const std::string& name);

}  // namespace statehouse::cli
