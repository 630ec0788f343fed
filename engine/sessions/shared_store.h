// Opens what several servers share: the archive of sessions and the snapshots, by one address. docs/replicas.md.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/sessions/session_archive.h"
#include "engine/state/blob_store.h"

namespace statehouse {

struct SharedStore {
  std::unique_ptr<SessionArchive> archive;
  std::unique_ptr<BlobStore> blobs;   // named "store"
  std::string where;                  // for messages, without a password
  std::vector<std::string> warnings;  // what about its settings may cost acknowledged turns
};

// `url`: an absolute path or file:///path (a folder that all servers mount), or
// redis://[user[:password]@]host[:port][/db] (Redis or Valkey; a password may come from the environment variable
// STATEHOUSE_REDIS_PASSWORD instead). INVALID_ARGUMENT with the field "--session-store"; UNAVAILABLE (no answer; the
// store is not usable yet); PERMISSION_DENIED (password). Blocks.
absl::StatusOr<SharedStore> OpenSharedStore(const std::string& url);

}  // namespace statehouse
