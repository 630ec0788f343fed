// Which sessions there are in a SharedFolder, whose they are and what they are called.
//
//   sessions/ab/<id>/entry                          id, principal, name, meta
//   principals/<hash of principal>/ab/<id>          which sessions a principal has
//   names/<hash of principal>/<hash of name>/<n>    who claimed the name; the highest n counts
//                                       …/<n>.state whether the claim was kept ("held") or taken over ("void")
//
// A name is claimed with link() under the next number, then the entry is written, then the claim is kept with link() of
// its state. A later server voids a claim that is not kept yet with link() of the same state. So of several servers
// that want one name, exactly one keeps it. Errors: as SessionArchive. Thread-safety: any thread; calls for one
// session come from one at a time.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/sessions/session_archive.h"
#include "engine/sessions/shared_folder.h"

namespace statehouse {

class FolderCatalog {
 public:
  explicit FolderCatalog(SharedFolder* folder) : folder_(folder) {}

  absl::Status Put(const SessionEntry& entry);
  absl::StatusOr<SessionEntry> Read(const std::string& id);
  absl::StatusOr<SessionEntry> Find(std::string_view principal, std::string_view ref);
  absl::StatusOr<std::vector<SessionEntry>> List(const std::string* principal, std::string_view after, int64_t limit);
  // By their markers: a removal that was cut short counts until the principal's sessions are listed.
  absl::StatusOr<int64_t> Count(std::string_view principal);
  // With everything in the session's folder.
  absl::Status Remove(const SessionEntry& entry);

  static std::string SessionPath(const std::string& id);

 private:
  // That the session is one of the principal's.
  absl::Status PutMarker(const std::string& principal, const std::string& id);
  void DropMarker(const std::string& principal, const std::string& id);

  // Of the last claim of a name: its number and session; 0 if nobody ever did.
  struct Claim {
    int64_t number = 0;
    std::string id;
  };
  absl::StatusOr<Claim> LastClaim(const std::string& principal, const std::string& name);
  // May the name that the last claim is for be claimed? Voids a claim that is not kept.
  absl::StatusOr<bool> IsFree(const Claim& claim, const SessionEntry& wanted);
  absl::StatusOr<int64_t> ClaimName(const SessionEntry& entry);
  // Makes the claim count, now that the entry is there. ALREADY_EXISTS: another server took it over.
  absl::Status KeepName(const SessionEntry& entry, int64_t claim);

  SharedFolder* const folder_;
};

}  // namespace statehouse
