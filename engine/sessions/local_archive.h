// A SessionArchive in a folder of this server alone: a journal of entries (the catalog) and one of records per session.
//
//   lock              held while the archive is open: two servers cannot use one folder
//   catalog           entries that were put, ids that were removed
//   sessions/ab/ab…   a session's records, by the first two digits of its id; made with its first record
//
// Only the catalog is read at start; a session's file when it is used. A file is written whole (when it is made, and
// when it has grown to more than it says) or at its end. Of what a crash leaves, an end that was never synced is cut
// off; anything else that is not right is DATA_LOSS of that session, and nothing of it is used: what was written whole,
// and every record that a later one says was synced before it. A damaged catalog is put together again from what is
// whole in it and from the sessions' files; repairs() tells. Thread-safety: as SessionArchive.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "engine/sessions/one_server_archive.h"
#include "engine/state/file_layer.h"
#include "engine/state/journal.h"

namespace statehouse {

class LocalArchive final : public OneServerArchive {
 public:
  // FAILED_PRECONDITION: another server uses the folder. `files` must outlive the archive. `max_open_files`: sessions
  // whose files are kept open, beside those in use.
  static absl::StatusOr<std::unique_ptr<LocalArchive>> Open(FileLayer* files, const std::string& folder,
                                                            int64_t max_open_files = 256);
  // Not empty: what was found damaged at start, and what was done about it.
  const std::string& repairs() const { return repairs_; }

  absl::Status PutEntry(const SessionEntry& entry) override;
  absl::Status Remove(std::string_view id, int64_t fence) override;
  absl::Status Append(std::string_view id, int64_t number, int64_t fence, std::string_view record, bool sync) override;
  absl::StatusOr<Records> Read(std::string_view id) override;
  absl::Status Compact(std::string_view id, int64_t number, int64_t fence, std::string_view record) override;
  absl::Status Sync() override;

 private:
  // A session's file.
  struct SessionFile {
    std::mutex mu;
    // Guarded by mu.
    std::unique_ptr<Journal> journal;  // null: the file is not there, or must be read first
    int64_t last = 0;                  // number of the last record
    int64_t synced = 0;                // number of the last one that survives a crash
    bool is_synced_known = false;      // else the file was there before, and nobody knows
    int64_t last_use = 0;              // guarded by the archive's mu_
  };
  // What a session's file says.
  struct Contents {
    bool exists = false;
    Records records;
    int64_t last = 0;
    int64_t whole_bytes = 0;
  };

  LocalArchive(FileLayer* files, std::string folder, int64_t max_open_files)
      : files_(files), folder_(std::move(folder)), max_open_files_(max_open_files) {}

  // --- catalog (local_catalog.cc); catalog_mu_ is held, but in Load() ---
  absl::Status Load();
  void ReplayCatalog(const std::string& record, std::set<std::string>* removed);
  absl::Status RestoreFromFiles(const std::set<std::string>& removed, int64_t* restored);
  absl::Status AppendToCatalog(const std::string& record);
  absl::Status RewriteCatalog();

  // --- sessions' files ---
  // The first payload of a session's file: its entry as of then, and which records were written whole with it.
  static bool ParseHead(std::string_view payload, SessionEntry* entry, int64_t* first, int64_t* last);
  std::string PathOf(std::string_view id) const;
  absl::StatusOr<SessionEntry> EntryOf(std::string_view id);
  std::shared_ptr<SessionFile> FileOf(std::string_view id);
  absl::StatusOr<Contents> ReadFile(std::string_view id);
  // REQUIRES: file->mu is held. Its journal is open afterwards, if there is a file.
  absl::Status OpenFile(std::string_view id, SessionFile* file, const Contents& contents);
  // A file with these records, of which the last is `last`, in the place of what was there.
  absl::Status WriteFile(const SessionEntry& entry, int64_t first, const std::vector<std::string>& records,
                         SessionFile* file);
  // Of a file that is not trusted. UNAVAILABLE: it still is not.
  absl::Status WriteAnew(const std::string& id);
  // After an error that leaves it open what stands in the file.
  absl::Status Distrust(std::string_view id, SessionFile* file, const absl::Status& status);

  FileLayer* const files_;
  const std::string folder_;
  const int64_t max_open_files_;
  std::string repairs_;
  std::unique_ptr<FileLock> lock_;

  std::mutex catalog_mu_;  // comes before mu_
  // Guarded by catalog_mu_.
  std::unique_ptr<Journal> catalog_;  // null: it must be written anew first
  int64_t catalog_live_bytes_ = 0;    // when it was written anew last

  // Guarded by mu_.
  std::map<std::string, std::shared_ptr<SessionFile>, std::less<>> open_;
  std::set<std::string, std::less<>> distrusted_;  // ids whose files must be written anew before they are added to
  std::set<std::string, std::less<>> unsynced_;
  int64_t uses_ = 0;
};

}  // namespace statehouse
