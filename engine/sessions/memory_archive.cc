#include "engine/sessions/memory_archive.h"

namespace statehouse {

absl::Status MemoryArchive::PutEntry(const SessionEntry& entry) {
  std::lock_guard<std::mutex> lock(mu_);
  if (absl::Status status = entries_.Check(entry); !status.ok()) return status;
  entries_.Put(entry);
  records_[entry.id];
  return absl::OkStatus();
}

absl::Status MemoryArchive::Remove(std::string_view id, int64_t) {
  std::lock_guard<std::mutex> lock(mu_);
  entries_.Remove(id);
  if (const auto found = records_.find(id); found != records_.end()) records_.erase(found);
  return absl::OkStatus();
}

absl::Status MemoryArchive::Append(std::string_view id, int64_t number, int64_t, std::string_view record, bool) {
  std::lock_guard<std::mutex> lock(mu_);
  const auto found = records_.find(id);
  if (found == records_.end()) return NoSuchSession(id);
  Records& kept = found->second;
  if (number != kept.first + static_cast<int64_t>(kept.records.size())) {
    return absl::AbortedError("another record was appended first");
  }
  kept.records.emplace_back(record);
  return absl::OkStatus();
}

absl::StatusOr<SessionArchive::Records> MemoryArchive::Read(std::string_view id) {
  std::lock_guard<std::mutex> lock(mu_);
  const auto found = records_.find(id);
  if (found == records_.end()) return NoSuchSession(id);
  return found->second;
}

absl::Status MemoryArchive::Compact(std::string_view id, int64_t number, int64_t, std::string_view record) {
  std::lock_guard<std::mutex> lock(mu_);
  const auto found = records_.find(id);
  if (found == records_.end()) return NoSuchSession(id);
  Records& kept = found->second;
  if (number != kept.first + static_cast<int64_t>(kept.records.size()) - 1) {
    return absl::AbortedError("another record was appended first");
  }
  kept = {.first = number, .records = {std::string(record)}};
  return absl::OkStatus();
}

}  // namespace statehouse
