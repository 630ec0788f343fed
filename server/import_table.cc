#include "server/import_table.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/errors.h"

namespace statehouse {
namespace {

constexpr absl::Duration kRetryAfter = absl::Seconds(5);

}  // namespace

int64_t ImportTable::Offset(const std::string& principal, const std::string& id) {
  std::lock_guard<std::mutex> lock(mu_);
  const auto found = transfers_.find(Key(principal, id));
  return found == transfers_.end() ? 0 : static_cast<int64_t>(found->second.bytes.size());
}

absl::Status ImportTable::Open(const std::string& principal, const std::string& id) {
  std::lock_guard<std::mutex> lock(mu_);
  const absl::Time now = absl::Now();
  ForgetOldLocked(now);
  const Key key(principal, id);
  auto found = transfers_.find(key);
  if (found == transfers_.end()) {
    const int64_t count = std::count_if(transfers_.begin(), transfers_.end(),
                                        [&](const auto& entry) { return entry.first.first == principal; });
    if (count >= limits_.max_transfers_per_principal) {
      return Overloaded(absl::StrCat(count, " imports of yours are under way or broke off; the most is ",
                                     limits_.max_transfers_per_principal),
                        kRetryAfter);
    }
    found = transfers_.emplace(key, Transfer()).first;
  }
  if (found->second.is_open) return Busy("another call sends this import", kRetryAfter);
  found->second.is_open = true;
  found->second.last_used = now;
  return absl::OkStatus();
}

absl::Status ImportTable::Append(const std::string& principal, const std::string& id, int64_t offset,
                                 const std::string& data) {
  std::lock_guard<std::mutex> lock(mu_);
  Transfer& transfer = transfers_[Key(principal, id)];
  const int64_t end = static_cast<int64_t>(transfer.bytes.size());
  if (offset != end)
    return InvalidField("offset", absl::StrCat(offset), absl::StrCat(end, ", where the last part ended"));
  if (bytes_ + static_cast<int64_t>(data.size()) > limits_.max_bytes) {
    return Overloaded(absl::StrCat("imports under way fill the ", limits_.max_bytes, " bytes that they may have"),
                      kRetryAfter);
  }
  transfer.bytes += data;
  transfer.last_used = absl::Now();
  bytes_ += static_cast<int64_t>(data.size());
  return absl::OkStatus();
}

void ImportTable::Close(const std::string& principal, const std::string& id) {
  std::lock_guard<std::mutex> lock(mu_);
  const auto found = transfers_.find(Key(principal, id));
  if (found == transfers_.end()) return;
  found->second.is_open = false;
  if (found->second.bytes.empty()) transfers_.erase(found);
}

std::string ImportTable::Take(const std::string& principal, const std::string& id) {
  std::lock_guard<std::mutex> lock(mu_);
  const auto found = transfers_.find(Key(principal, id));
  if (found == transfers_.end()) return "";
  std::string bytes = std::move(found->second.bytes);
  bytes_ -= static_cast<int64_t>(bytes.size());
  transfers_.erase(found);
  return bytes;
}

void ImportTable::ForgetOldLocked(absl::Time now) {
  std::erase_if(transfers_, [&](const auto& entry) {
    const Transfer& transfer = entry.second;
    const bool is_old = !transfer.is_open && now - transfer.last_used > limits_.keep;
    if (is_old) bytes_ -= static_cast<int64_t>(transfer.bytes.size());
    return is_old;
  });
}

}  // namespace statehouse
