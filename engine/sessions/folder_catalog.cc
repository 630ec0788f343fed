#include "engine/sessions/folder_catalog.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "engine/sessions/byte_coding.h"
#include "engine/sessions/entry_coding.h"
#include "engine/sessions/folder_log.h"

namespace statehouse {
namespace {

std::string HashOf(std::string_view text) {
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return absl::StrCat(absl::Hex(hash.high64, absl::kZeroPad16), absl::Hex(hash.low64, absl::kZeroPad16));
}

std::string EntryPath(const std::string& id) { return absl::StrCat(FolderCatalog::SessionPath(id), "/entry"); }
std::string PrincipalPath(std::string_view principal) { return absl::StrCat("principals/", HashOf(principal)); }
std::string MarkerPath(std::string_view principal, const std::string& id) {
  return absl::StrCat(PrincipalPath(principal), "/", id.substr(0, 2), "/", id);
}
std::string NamePath(std::string_view principal, std::string_view name) {
  return absl::StrCat("names/", HashOf(principal), "/", HashOf(name));
}

constexpr int kMaxTries = 16;

// What became of a claim; put once, so that either its maker keeps it or another server voids it.
constexpr char kHeld[] = "held";
constexpr char kVoid[] = "void";
std::string StatePath(const SessionEntry& entry, int64_t claim) {
  return absl::StrCat(NamePath(entry.principal, entry.name), "/", claim, ".state");
}

absl::Status Taken(const std::string& name) {
  return absl::AlreadyExistsError(absl::StrCat("the name \"", name, "\" is taken"));
}

}  // namespace

std::string FolderCatalog::SessionPath(const std::string& id) {
  return absl::StrCat("sessions/", id.substr(0, 2), "/", id);
}

absl::StatusOr<SessionEntry> FolderCatalog::Read(const std::string& id) {
  const auto bytes = folder_->Read(EntryPath(id));
  if (absl::IsNotFound(bytes.status())) return NoSuchSession(id);
  if (!bytes.ok()) return bytes.status();
  ByteReader reader(*bytes);
  SessionEntry entry = ReadEntry(&reader);
  if (!reader.finished() || entry.id != id) {
    return absl::DataLossError(absl::StrCat(folder_->root(), "/", EntryPath(id), " is no entry of this session"));
  }
  return entry;
}

absl::Status FolderCatalog::Put(const SessionEntry& entry) {
  if (!IsSessionId(entry.id)) return BadField("id", "32 hexadecimal digits are expected");
  const auto before = Read(entry.id);
  if (!before.ok() && !absl::IsNotFound(before.status())) return before.status();
  const bool claims = !entry.name.empty() && !(before.ok() && before->name == entry.name);
  absl::StatusOr<int64_t> claim = 0;
  if (claims && !(claim = ClaimName(entry)).ok()) return claim.status();
  if (!before.ok()) {
    if (absl::Status status = FolderLog(folder_).Create(SessionPath(entry.id)); !status.ok()) return status;
  }
  const auto encode = [](const SessionEntry& which) {
    ByteWriter writer;
    WriteEntry(which, &writer);
    return writer.Take();
  };
  if (absl::Status status = folder_->Replace(EntryPath(entry.id), encode(entry)); !status.ok()) return status;
  if (claims) {
    if (absl::Status status = KeepName(entry, *claim); !status.ok()) {
      const absl::Status undone =
          before.ok() ? folder_->Replace(EntryPath(entry.id), encode(*before)) : folder_->Remove(SessionPath(entry.id));
      return undone.ok() ? status : undone;
    }
  }
  return PutMarker(entry.principal, entry.id);
}

absl::Status FolderCatalog::PutMarker(const std::string& principal, const std::string& id) {
  const std::string marker = MarkerPath(principal, id);
  if (folder_->Exists(marker)) return absl::OkStatus();
  absl::Status status = folder_->MakeFolder(marker.substr(0, marker.rfind('/')));
  if (status.ok()) status = folder_->PutNew(marker, "", nullptr);
  return absl::IsAlreadyExists(status) ? absl::OkStatus() : status;
}

void FolderCatalog::DropMarker(const std::string& principal, const std::string& id) {
  folder_->Remove(MarkerPath(principal, id)).IgnoreError();
  // Who enters it again at this moment may have found the marker in place.
  if (folder_->Exists(EntryPath(id))) PutMarker(principal, id).IgnoreError();
}

absl::StatusOr<FolderCatalog::Claim> FolderCatalog::LastClaim(const std::string& principal, const std::string& name) {
  const std::string path = NamePath(principal, name);
  for (int attempt = 0; attempt < kMaxTries; ++attempt) {
    const auto names = folder_->List(path);
    if (!names.ok()) return names.status();
    Claim last;
    for (const std::string& number : *names) {
      int64_t value = 0;
      if (absl::SimpleAtoi(number, &value)) last.number = std::max(last.number, value);
    }
    if (last.number == 0) return last;
    const auto id = folder_->Read(absl::StrCat(path, "/", last.number));
    if (absl::IsNotFound(id.status())) continue;  // a later one was kept since the names were listed
    if (!id.ok()) return id.status();
    last.id = *id;
    return last;
  }
  return Busy(absl::StrCat("the name \"", name, "\" changes too fast"), absl::Seconds(1));
}

absl::StatusOr<bool> FolderCatalog::IsFree(const Claim& claim, const SessionEntry& wanted) {
  if (claim.number == 0) return true;
  const std::string path = StatePath(wanted, claim.number);
  auto state = folder_->Read(path);
  if (absl::IsNotFound(state.status())) {
    // Whoever made the claim died, or is at it now; from here on it cannot be kept.
    const absl::Status voided = folder_->PutNew(path, kVoid, nullptr);
    if (voided.ok()) return true;
    if (!absl::IsAlreadyExists(voided)) return voided;
    state = folder_->Read(path);
  }
  if (!state.ok()) return state.status();
  if (*state == kVoid) return true;
  // A claim that was kept counts as long as its session is there and has that name.
  const auto holder = Read(claim.id);
  if (absl::IsNotFound(holder.status()) || claim.id == wanted.id) return true;
  if (!holder.ok()) return holder.status();
  return holder->name != wanted.name || holder->principal != wanted.principal;
}

absl::StatusOr<int64_t> FolderCatalog::ClaimName(const SessionEntry& entry) {
  const std::string path = NamePath(entry.principal, entry.name);
  if (absl::Status status = folder_->MakeFolder(path); !status.ok()) return status;
  auto last = LastClaim(entry.principal, entry.name);
  absl::StatusOr<bool> free = false;
  for (int attempt = 0; attempt < kMaxTries; ++attempt) {
    if (!last.ok()) return last.status();
    free = IsFree(*last, entry);
    if (!absl::IsNotFound(free.status())) break;
    // Its state has gone: a later claim was kept meanwhile.
    last = LastClaim(entry.principal, entry.name);
  }
  if (!free.ok()) return free.status();
  if (!*free) return Taken(entry.name);
  const absl::Status status = folder_->PutNew(absl::StrCat(path, "/", last->number + 1), entry.id, nullptr);
  if (absl::IsAlreadyExists(status)) return Taken(entry.name);
  if (!status.ok()) return status;
  return last->number + 1;
}

absl::Status FolderCatalog::KeepName(const SessionEntry& entry, int64_t claim) {
  absl::Status kept = folder_->PutNew(StatePath(entry, claim), kHeld, nullptr);
  if (absl::IsAlreadyExists(kept)) return Taken(entry.name);
  if (!kept.ok()) return kept;
  // A server that had slept may have claimed a number that was used and removed long ago.
  const auto last = LastClaim(entry.principal, entry.name);
  if (!last.ok()) return last.status();
  if (last->number != claim) return Taken(entry.name);
  for (int64_t old = claim - 1; old > 0; --old) {
    const std::string path = absl::StrCat(NamePath(entry.principal, entry.name), "/", old);
    if (!folder_->Exists(path)) break;
    folder_->Remove(path).IgnoreError();  // only the highest counts
    folder_->Remove(StatePath(entry, old)).IgnoreError();
  }
  return absl::OkStatus();
}

absl::StatusOr<SessionEntry> FolderCatalog::Find(std::string_view principal, std::string_view ref) {
  if (IsSessionId(ref)) {
    auto entry = Read(std::string(ref));
    if (entry.ok() || !absl::IsNotFound(entry.status())) return entry;
  }
  const auto claim = LastClaim(std::string(principal), std::string(ref));
  if (!claim.ok()) return claim.status();
  if (claim->number == 0) return NoSuchSession(ref);
  auto entry = Read(claim->id);
  if (absl::IsNotFound(entry.status())) return NoSuchSession(ref);
  if (entry.ok() && (entry->name != ref || entry->principal != principal)) return NoSuchSession(ref);
  return entry;
}

absl::StatusOr<std::vector<SessionEntry>> FolderCatalog::List(const std::string* principal, std::string_view after,
                                                              int64_t limit) {
  const std::string top = principal == nullptr ? "sessions" : PrincipalPath(*principal);
  std::vector<SessionEntry> found;
  const auto shards = folder_->List(top);
  if (!shards.ok()) return shards.status();
  for (const std::string& shard : *shards) {
    if (shard < after.substr(0, 2)) continue;
    const auto ids = folder_->List(absl::StrCat(top, "/", shard));
    if (!ids.ok()) return ids.status();
    for (const std::string& id : *ids) {
      if (static_cast<int64_t>(found.size()) >= limit) return found;
      if (id <= after || !IsSessionId(id)) continue;
      auto entry = Read(id);
      if (absl::IsNotFound(entry.status())) {
        // The marker comes after the entry: whoever removed the session died before it was through.
        if (principal != nullptr) DropMarker(*principal, id);
        continue;
      }
      if (!entry.ok()) return entry.status();
      if (principal != nullptr && entry->principal != *principal) continue;
      found.push_back(*std::move(entry));
    }
  }
  return found;
}

absl::StatusOr<int64_t> FolderCatalog::Count(std::string_view principal) {
  const std::string top = PrincipalPath(principal);
  const auto shards = folder_->List(top);
  if (!shards.ok()) return shards.status();
  int64_t count = 0;
  for (const std::string& shard : *shards) {
    const auto ids = folder_->List(absl::StrCat(top, "/", shard));
    if (!ids.ok()) return ids.status();
    count += static_cast<int64_t>(ids->size());
  }
  return count;
}

absl::Status FolderCatalog::Remove(const SessionEntry& entry) {
  if (absl::Status status = folder_->Remove(SessionPath(entry.id)); !status.ok()) return status;
  return folder_->Remove(MarkerPath(entry.principal, entry.id));
}

}  // namespace statehouse
