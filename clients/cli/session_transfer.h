// `statehouse sessions export` and `import`: a session as a file, in checksummed parts; a transfer that broke off goes
// on where it ended, in the same command or the next. Thread-safety: stateless.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "clients/cli/connection.h"
#include "clients/cli/session_calls.h"
#include "statehouse/v1/sessions.pb.h"

namespace statehouse::cli {

struct ExportOptions {
  v1::ExportSessionRequest request;  // session, compression, encoding
  std::string file;                  // made whole or not at all; FILE.part and FILE.part.id hold what has arrived
  bool overwrite = false;
};
// Shows progress on standard error. ALREADY_EXISTS: the file is there.
absl::Status ExportSession(const Connection& connection, const ExportOptions& options, const Printing& printing);

struct ImportOptions {
  v1::ImportSessionHeader header;  // import_id is filled in
  std::string file;
};
absl::Status ImportSession(const Connection& connection, const ImportOptions& options, const Printing& printing);

}  // namespace statehouse::cli
