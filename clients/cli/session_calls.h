// What `statehouse sessions …` asks of a server. Each prints to `out`, as text or (json) as one JSON object, and
// returns OK or what went wrong. Thread-safety: stateless.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "clients/cli/connection.h"
#include "clients/cli/printing.h"
#include "statehouse/v1/sessions.pb.h"

namespace statehouse::cli {

absl::Status CreateSession(const Connection& connection, const v1::CreateSessionRequest& request,
                           const Printing& printing);
// All that have the labels, page by page; at most `limit` (0: all).
absl::Status ListSessions(const Connection& connection, const std::map<std::string, std::string>& labels, int64_t limit,
                          const Printing& printing);
struct ShowOptions {
  bool transcript = false;
  int64_t from = 0;
};
absl::Status ShowSession(const Connection& connection, const std::string& session, const ShowOptions& options,
                         const Printing& printing);
absl::Status ForkSession(const Connection& connection, const v1::ForkSessionRequest& request, const Printing& printing);
// To a position, or by a number of turns.
struct RewindTarget {
  std::optional<int64_t> position;
  int64_t turns = 0;
  bool dry_run = false;
};
absl::Status RewindSession(const Connection& connection, const std::string& session, const RewindTarget& target,
                           const Printing& printing);
// Shows progress on standard error.
absl::Status RebuildSession(const Connection& connection, const std::string& session, const Printing& printing);
absl::Status DeleteSessions(const Connection& connection, const std::vector<std::string>& sessions,
                            const Printing& printing);
absl::Status UpdateSession(const Connection& connection, const v1::UpdateSessionRequest& request,
                           const Printing& printing);
absl::Status BreakLease(const Connection& connection, const std::string& session, const Printing& printing);
// DATA_LOSS if something is damaged.
absl::Status CheckSessions(const Connection& connection, const std::string& session, const Printing& printing);
absl::Status CollectGarbage(const Connection& connection, const Printing& printing);

// The whole answer of Get: all of the transcript from `from` on, however long.
absl::StatusOr<v1::GetSessionResponse> GetTranscript(const Connection& connection, const std::string& session,
                                                     int64_t from);
absl::StatusOr<v1::Session> GetSession(const Connection& connection, const std::string& session);

}  // namespace statehouse::cli
