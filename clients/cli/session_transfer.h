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
  std::string file;  // as ExportTarget::Open() takes it; FILE.part and FILE.part.id hold what has arrived
  bool overwrite = false;
};
// Shows progress on standard error; for "-" also what it has to say. Errors: ExportTarget's and the server's.
absl::Status ExportSession(const Connection& connection, const ExportOptions& options, const Printing& printing);

struct ImportOptions {
  v1::ImportSessionHeader header;  // import_id is filled in
  std::string file;                // "-": standard input
};
absl::Status ImportSession(const Connection& connection, const ImportOptions& options, const Printing& printing);

}  // namespace statehouse::cli
