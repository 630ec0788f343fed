// Sessions' files. local_catalog.cc is the rest.
#include "engine/sessions/local_archive.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/sessions/byte_coding.h"
#include "engine/sessions/entry_coding.h"

namespace statehouse {
namespace {

// Payloads of a session's file: first its head, then its records.
std::string Head(const SessionEntry& entry, int64_t first, int64_t last) {
  ByteWriter to;
  to.Text("session file, format 1");
  WriteEntry(entry, &to);
  to.Number(static_cast<uint64_t>(first));
  to.Number(static_cast<uint64_t>(last));  // up to here it was written whole
  return to.Take();
}

std::string Numbered(int64_t number, int64_t synced, std::string_view record) {
  ByteWriter to;
  to.Number(static_cast<uint64_t>(number));
  to.Number(static_cast<uint64_t>(synced));  // records that surely stood on disk before this one was written
  to.Text(record);
  return to.Take();
}

struct NumberedRecord {
  int64_t number = 0;
  int64_t synced = 0;
  std::string record;
};

bool Parse(std::string_view payload, NumberedRecord* parsed) {
  ByteReader from(payload);
  parsed->number = from.Count();
  parsed->synced = from.Count();
  parsed->record = from.Text();
  return from.finished();
}

}  // namespace

bool LocalArchive::ParseHead(std::string_view payload, SessionEntry* entry, int64_t* first, int64_t* last) {
  ByteReader from(payload);
  const bool is_ours = from.Text() == "session file, format 1";
  *entry = ReadEntry(&from);
  *first = from.Count();
  *last = from.Count();
  return is_ours && from.finished() && *first >= 1 && *last >= *first;
}

std::string LocalArchive::PathOf(std::string_view id) const {
  return absl::StrCat(folder_, "/sessions/", std::string(id.substr(0, 2)), "/", std::string(id));
}

absl::StatusOr<SessionEntry> LocalArchive::EntryOf(std::string_view id) {
  std::lock_guard<std::mutex> lock(mu_);
  const SessionEntry* const entry = entries_.FindId(id);
  if (entry == nullptr) return NoSuchSession(id);
  return *entry;
}

std::shared_ptr<LocalArchive::SessionFile> LocalArchive::FileOf(std::string_view id) {
  std::lock_guard<std::mutex> lock(mu_);
  std::shared_ptr<SessionFile>& file = open_[std::string(id)];
  if (file == nullptr) file = std::make_shared<SessionFile>();
  file->last_use = ++uses_;
  std::shared_ptr<SessionFile> found = file;
  while (static_cast<int64_t>(open_.size()) > max_open_files_) {
    auto oldest = open_.end();
    for (auto entry = open_.begin(); entry != open_.end(); ++entry) {
      const bool is_idle = entry->second.use_count() == 1 && !unsynced_.contains(entry->first);
      if (is_idle && (oldest == open_.end() || entry->second->last_use < oldest->second->last_use)) oldest = entry;
    }
    if (oldest == open_.end()) break;
    open_.erase(oldest);
  }
  return found;
}

absl::StatusOr<LocalArchive::Contents> LocalArchive::ReadFile(std::string_view id) {
  const std::string path = PathOf(id);
  const auto journal = Journal::Read(files_, path);
  if (!journal.ok()) return journal.status();
  Contents contents;
  contents.exists = journal->whole_bytes + journal->torn_bytes > 0;
  contents.whole_bytes = journal->whole_bytes;
  if (!contents.exists) {
    // A file is put in place with a head and a record: an empty one was cut.
    if (files_->Stat(path).ok()) return absl::DataLossError(absl::StrCat(path, ": the file is empty"));
    return contents;
  }
  const auto damaged = [&](std::string_view what) {
    return absl::DataLossError(absl::StrCat(path, ": ", std::string(what), ", at byte ", journal->whole_bytes, " of ",
                                            journal->whole_bytes + journal->torn_bytes));
  };
  SessionEntry entry;
  int64_t written_whole = 0;
  if (journal->records.empty() || !ParseHead(journal->records[0], &entry, &contents.records.first, &written_whole)) {
    return damaged("its head is damaged, or it is no session's file");
  }
  if (entry.id != id) return absl::DataLossError(absl::StrCat(path, ": it is the file of session ", entry.id));
  contents.last = contents.records.first - 1;
  NumberedRecord parsed;
  for (size_t idx = 1; idx < journal->records.size(); ++idx) {
    if (!Parse(journal->records[idx], &parsed) || parsed.number != contents.last + 1) {
      return damaged(absl::StrCat("record ", contents.last + 1, " is not there"));
    }
    contents.records.records.push_back(std::move(parsed.record));
    contents.last = parsed.number;
  }
  if (contents.last < written_whole) return damaged(absl::StrCat("record ", contents.last + 1, " is damaged"));
  for (const std::string& payload : journal->beyond) {
    if (Parse(payload, &parsed) && parsed.synced > contents.last) {
      return damaged(absl::StrCat("record ", contents.last + 1, " is damaged"));
    }
  }
  return contents;
}

absl::Status LocalArchive::WriteFile(const SessionEntry& entry, int64_t first, const std::vector<std::string>& records,
                                     SessionFile* file) {
  const std::string path = PathOf(entry.id);
  file->journal.reset();
  if (absl::Status status = files_->MakeFolder(path.substr(0, path.rfind('/'))); !status.ok()) return status;
  const int64_t last = first + static_cast<int64_t>(records.size()) - 1;
  int64_t bytes = 0;
  absl::Status status = files_->WriteWhole(path, [&](const ByteSink& sink) -> absl::Status {
    std::string framed = Journal::Frame(Head(entry, first, last));
    for (size_t idx = 0; idx < records.size(); ++idx) {
      framed += Journal::Frame(Numbered(first + static_cast<int64_t>(idx), last, records[idx]));
    }
    bytes = static_cast<int64_t>(framed.size());
    return sink(std::as_bytes(std::span(framed)));
  });
  if (!status.ok()) return status;
  file->last = file->synced = last;
  file->is_synced_known = true;
  {
    std::lock_guard<std::mutex> lock(mu_);
    distrusted_.erase(entry.id);
    unsynced_.erase(entry.id);
  }
  auto journal = Journal::OpenAt(files_, path, bytes);
  if (journal.ok()) file->journal = *std::move(journal);  // else it is opened when it is needed
  return absl::OkStatus();
}

absl::Status LocalArchive::OpenFile(std::string_view id, SessionFile* file, const Contents& contents) {
  if (!contents.exists || file->journal != nullptr) return absl::OkStatus();
  bool is_distrusted = false;
  {
    std::lock_guard<std::mutex> lock(mu_);
    is_distrusted = distrusted_.contains(id);
  }
  if (is_distrusted) {
    // What is read may never have reached the disk, and would not be written by another sync.
    const auto entry = EntryOf(id);
    if (!entry.ok()) return entry.status();
    return WriteFile(*entry, contents.records.first, contents.records.records, file);
  }
  auto journal = Journal::OpenAt(files_, PathOf(id), contents.whole_bytes);
  if (!journal.ok()) return journal.status();
  file->journal = *std::move(journal);
  file->last = contents.last;
  file->synced = 0;
  file->is_synced_known = false;
  return absl::OkStatus();
}

absl::Status LocalArchive::Distrust(std::string_view id, SessionFile* file, const absl::Status& status) {
  file->journal.reset();
  std::lock_guard<std::mutex> lock(mu_);
  distrusted_.emplace(id);
  unsynced_.erase(std::string(id));
  return absl::UnavailableError(std::string(status.message()));
}

absl::StatusOr<SessionArchive::Records> LocalArchive::Read(std::string_view id) {
  const auto entry = EntryOf(id);
  if (!entry.ok()) return entry.status();
  const std::shared_ptr<SessionFile> file = FileOf(id);
  std::lock_guard<std::mutex> lock(file->mu);
  auto contents = ReadFile(id);
  if (!contents.ok()) return contents.status();
  if (absl::Status status = OpenFile(id, file.get(), *contents); !status.ok()) return status;
  return std::move(contents->records);
}

absl::Status LocalArchive::Append(std::string_view id, int64_t number, int64_t, std::string_view record, bool sync) {
  const auto entry = EntryOf(id);
  if (!entry.ok()) return entry.status();
  const std::shared_ptr<SessionFile> file = FileOf(id);
  std::lock_guard<std::mutex> lock(file->mu);
  if (file->journal == nullptr) {
    const auto contents = ReadFile(id);
    if (!contents.ok()) return contents.status();
    file->last = contents->last;
    if (absl::Status status = OpenFile(id, file.get(), *contents); !status.ok()) return status;
  }
  if (number != file->last + 1) {
    return absl::AbortedError(absl::StrCat("record ", number, " cannot follow record ", file->last));
  }
  if (file->journal == nullptr) {
    absl::Status status = WriteFile(*entry, number, {std::string(record)}, file.get());
    if (status.ok() || absl::IsResourceExhausted(status)) return status;
    return Distrust(id, file.get(), status);
  }
  if (!file->is_synced_known) {  // once, so that the records from here on can vouch for those before
    if (absl::Status status = file->journal->Sync(); !status.ok()) return Distrust(id, file.get(), status);
    file->synced = file->last;
    file->is_synced_known = true;
  }
  absl::Status status = file->journal->Append(Numbered(number, file->synced, record), sync);
  if (absl::IsResourceExhausted(status)) return status;
  if (!status.ok()) return Distrust(id, file.get(), status);
  file->last = number;
  if (sync) file->synced = number;
  std::lock_guard<std::mutex> table(mu_);
  if (sync) {
    unsynced_.erase(std::string(id));
  } else {
    unsynced_.emplace(id);
  }
  return absl::OkStatus();
}

absl::Status LocalArchive::Compact(std::string_view id, int64_t number, int64_t, std::string_view record) {
  const auto entry = EntryOf(id);
  if (!entry.ok()) return entry.status();
  const std::shared_ptr<SessionFile> file = FileOf(id);
  std::lock_guard<std::mutex> lock(file->mu);
  if (file->journal == nullptr) {
    const auto contents = ReadFile(id);
    if (!contents.ok()) return contents.status();
    if (!contents->exists) return absl::FailedPreconditionError("there are no records to replace");
    file->last = contents->last;
  }
  if (number != file->last) {
    return absl::AbortedError(absl::StrCat("the last record is ", file->last, ", not ", number));
  }
  absl::Status status = WriteFile(*entry, number, {std::string(record)}, file.get());
  if (status.ok() || absl::IsResourceExhausted(status)) return status;
  return Distrust(id, file.get(), status);
}

absl::Status LocalArchive::Sync() {
  std::vector<std::pair<std::string, std::shared_ptr<SessionFile>>> waiting;
  std::vector<std::string> distrusted;
  {
    std::lock_guard<std::mutex> lock(mu_);
    for (const std::string& id : unsynced_) {
      if (const auto found = open_.find(id); found != open_.end()) waiting.emplace_back(id, found->second);
    }
    distrusted.assign(distrusted_.begin(), distrusted_.end());
  }
  absl::Status first = absl::OkStatus();
  for (const auto& [id, file] : waiting) {
    std::lock_guard<std::mutex> lock(file->mu);
    if (file->journal == nullptr) continue;
    absl::Status status = file->journal->Sync();
    if (status.ok()) {
      file->synced = file->last;
      std::lock_guard<std::mutex> table(mu_);
      unsynced_.erase(id);
    } else {
      status = Distrust(id, file.get(), status);
    }
    if (first.ok()) first = status;
  }
  // A sync that failed once is not made good by one that succeeds: what stands there has to be written again.
  for (const std::string& id : distrusted) {
    const absl::Status status = WriteAnew(id);
    if (first.ok()) first = status;
  }
  return first;
}

absl::Status LocalArchive::WriteAnew(const std::string& id) {
  if (absl::IsNotFound(EntryOf(id).status())) return absl::OkStatus();  // removed meanwhile
  const std::shared_ptr<SessionFile> file = FileOf(id);
  std::lock_guard<std::mutex> lock(file->mu);
  const auto contents = ReadFile(id);
  absl::Status status = contents.status();
  if (status.ok()) status = OpenFile(id, file.get(), *contents);
  if (!status.ok() && !absl::IsNotFound(status)) return absl::UnavailableError(std::string(status.message()));
  if (status.ok() && !contents->exists) {  // it never came to be
    std::lock_guard<std::mutex> table(mu_);
    distrusted_.erase(id);
  }
  return absl::OkStatus();
}

}  // namespace statehouse
