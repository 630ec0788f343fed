// LocalArchive's catalog: which sessions there are.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/sessions/byte_coding.h"
#include "engine/sessions/entry_coding.h"
#include "engine/sessions/local_archive.h"

namespace statehouse {
namespace {

// Payloads of the catalog.
constexpr uint64_t kPut = 1;
constexpr uint64_t kRemove = 2;
// A catalog is written anew when it has more than twice the bytes that it takes, and this many beyond.
constexpr int64_t kSlackBytes = int64_t{64} << 10;

std::string PutRecord(const SessionEntry& entry) {
  ByteWriter to;
  to.Number(kPut);
  WriteEntry(entry, &to);
  return to.Take();
}

std::string RemoveRecord(std::string_view id) {
  ByteWriter to;
  to.Number(kRemove);
  to.Text(id);
  return to.Take();
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalArchive>> LocalArchive::Open(FileLayer* files, const std::string& folder,
                                                                 int64_t max_open_files) {
  std::unique_ptr<LocalArchive> archive(new LocalArchive(files, folder, max_open_files));
  if (absl::Status status = archive->Load(); !status.ok()) return status;
  return archive;
}

absl::Status LocalArchive::Load() {
  if (absl::Status status = files_->MakeFolder(folder_ + "/sessions"); !status.ok()) return status;
  auto lock = files_->Lock(folder_ + "/lock");
  if (!lock.ok()) return lock.status();
  lock_ = *std::move(lock);

  const std::string path = folder_ + "/catalog";
  const auto contents = Journal::Read(files_, path);
  if (!contents.ok()) return contents.status();
  std::set<std::string> removed;
  for (const std::string& record : contents->records) ReplayCatalog(record, &removed);
  catalog_live_bytes_ = 0;
  for (const auto& [id, entry] : entries_.by_id()) {
    catalog_live_bytes_ += static_cast<int64_t>(Journal::Frame(PutRecord(entry)).size());
  }
  // A removal that a crash cut short leaves a file behind that nothing names.
  for (const std::string& id : removed) {
    if (files_->Stat(PathOf(id)).ok() && entries_.FindId(id) == nullptr) {
      if (absl::Status status = files_->Remove(PathOf(id)); !status.ok()) return status;
    }
  }
  if (contents->torn_bytes == 0) {
    auto journal = Journal::OpenAt(files_, path, contents->whole_bytes);
    if (!journal.ok()) return journal.status();
    catalog_ = *std::move(journal);
    return absl::OkStatus();
  }
  // Mostly the last entry of a server that crashed, but one cannot tell: nothing that can be found again is lost.
  for (const std::string& record : contents->beyond) ReplayCatalog(record, &removed);
  int64_t restored = 0;
  if (absl::Status status = RestoreFromFiles(removed, &restored); !status.ok()) return status;
  if (!contents->beyond.empty() || restored > 0) {
    repairs_ =
        absl::StrCat(path, ": damaged at byte ", contents->whole_bytes, "; ", contents->beyond.size(),
                     " entries behind it were read, and ", restored, " restored from the files of their sessions");
  }
  return RewriteCatalog();
}

void LocalArchive::ReplayCatalog(const std::string& record, std::set<std::string>* removed) {
  ByteReader from(record);
  const uint64_t kind = from.Number();
  if (kind == kRemove) {
    const std::string id = from.Text();
    if (!from.finished()) return;
    entries_.Remove(id);
    removed->insert(id);
    return;
  }
  SessionEntry entry = ReadEntry(&from);
  if (kind != kPut || !from.finished()) return;
  removed->erase(entry.id);
  // Only behind damage can another session still have the name.
  if (!entries_.Check(entry).ok()) entry.name.clear();
  entries_.Put(entry);
}

absl::Status LocalArchive::RestoreFromFiles(const std::set<std::string>& removed, int64_t* restored) {
  const auto shards = files_->List(folder_ + "/sessions");
  if (!shards.ok()) return shards.status();
  for (const std::string& shard : *shards) {
    const auto ids = files_->List(absl::StrCat(folder_, "/sessions/", shard));
    if (!ids.ok()) return ids.status();
    for (const std::string& id : *ids) {
      if (entries_.FindId(id) != nullptr || removed.contains(id)) continue;
      const auto contents = Journal::Read(files_, PathOf(id));
      if (!contents.ok()) return contents.status();
      SessionEntry entry;
      int64_t first = 0;
      int64_t last = 0;
      const bool has_head = !contents->records.empty() && ParseHead(contents->records[0], &entry, &first, &last);
      if (!has_head || entry.id != id) continue;
      if (!entries_.Check(entry).ok()) entry.name.clear();
      entries_.Put(entry);
      ++*restored;
    }
  }
  return absl::OkStatus();
}

absl::Status LocalArchive::RewriteCatalog() {
  const std::string path = folder_ + "/catalog";
  int64_t bytes = 0;
  absl::Status status = files_->WriteWhole(path, [&](const ByteSink& sink) -> absl::Status {
    std::vector<SessionEntry> entries;
    {
      std::lock_guard<std::mutex> lock(mu_);
      for (const auto& [id, entry] : entries_.by_id()) entries.push_back(entry);
    }
    std::string part;
    for (const SessionEntry& entry : entries) {
      part += Journal::Frame(PutRecord(entry));
      if (part.size() < size_t{1} << 20) continue;
      bytes += static_cast<int64_t>(part.size());
      if (absl::Status written = sink(std::as_bytes(std::span(part))); !written.ok()) return written;
      part.clear();
    }
    bytes += static_cast<int64_t>(part.size());
    return sink(std::as_bytes(std::span(part)));
  });
  if (absl::IsResourceExhausted(status)) return status;  // the old one is as it was
  catalog_.reset();
  if (!status.ok()) return status;
  auto journal = Journal::OpenAt(files_, path, bytes);
  if (!journal.ok()) return journal.status();
  catalog_ = *std::move(journal);
  catalog_live_bytes_ = bytes;
  return absl::OkStatus();
}

absl::Status LocalArchive::AppendToCatalog(const std::string& record) {
  if (catalog_ == nullptr) {  // the last call failed: what stands in the file is not known
    if (absl::Status status = RewriteCatalog(); !status.ok()) return status;
  }
  absl::Status status = catalog_->Append(record, /*sync=*/true);
  if (status.ok() || absl::IsResourceExhausted(status)) return status;
  catalog_.reset();
  return absl::UnavailableError(std::string(status.message()));
}

absl::Status LocalArchive::PutEntry(const SessionEntry& entry) {
  std::lock_guard<std::mutex> catalog(catalog_mu_);
  {
    std::lock_guard<std::mutex> lock(mu_);
    if (absl::Status status = entries_.Check(entry); !status.ok()) return status;
  }
  if (absl::Status status = AppendToCatalog(PutRecord(entry)); !status.ok()) return status;
  {
    std::lock_guard<std::mutex> lock(mu_);
    entries_.Put(entry);
  }
  // What fails here is tried again with the next entry.
  if (catalog_->size() > 2 * catalog_live_bytes_ + kSlackBytes) (void)RewriteCatalog();
  return absl::OkStatus();
}

absl::Status LocalArchive::Remove(std::string_view id, int64_t) {
  std::lock_guard<std::mutex> catalog(catalog_mu_);
  {
    std::lock_guard<std::mutex> lock(mu_);
    if (entries_.FindId(id) == nullptr) return absl::OkStatus();
  }
  absl::Status status = AppendToCatalog(RemoveRecord(id));
  if (absl::IsResourceExhausted(status) && files_->Remove(PathOf(id)).ok()) {
    // Removing must be possible on a full disk. A crash right here leaves an entry that can only be removed.
    status = AppendToCatalog(RemoveRecord(id));
  }
  if (!status.ok()) return status;
  {
    std::lock_guard<std::mutex> lock(mu_);
    entries_.Remove(id);
    if (const auto found = open_.find(id); found != open_.end()) open_.erase(found);
    if (const auto found = distrusted_.find(id); found != distrusted_.end()) distrusted_.erase(found);
    unsynced_.erase(std::string(id));
  }
  // If this fails, the file is removed at the next start.
  (void)files_->Remove(PathOf(id));
  return absl::OkStatus();
}

}  // namespace statehouse
