#include "server/import_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/errors.h"

namespace statehouse {
namespace {

constexpr absl::Duration kRetryAfter = absl::Seconds(5);

}  // namespace

int64_t ImportTable::Offset(const std::string& principal, const std::string& id) {
  std::lock_guard<std::mutex> lock(mu_);
  ForgetOldLocked(absl::Now());
  const auto found = transfers_.find(Key(principal, id));
  return found == transfers_.end() ? 0 : static_cast<int64_t>(found->second.bytes.size());
}

absl::StatusOr<std::unique_ptr<ImportTable::Opened>> ImportTable::Open(const std::string& principal,
                                                                       const std::string& id) {
  std::unique_ptr<Opened> opened(new Opened(nullptr, {principal, id}));
  std::lock_guard<std::mutex> lock(mu_);
  const absl::Time now = absl::Now();
  ForgetOldLocked(now);
  auto found = transfers_.find(opened->key_);
  if (found == transfers_.end()) {
    const int64_t count = std::count_if(transfers_.begin(), transfers_.end(),
                                        [&](const auto& entry) { return entry.first.first == principal; });
    if (count >= limits_.max_transfers_per_principal) {
      return Overloaded(absl::StrCat(count, " imports of yours are under way or broke off; the most is ",
                                     limits_.max_transfers_per_principal),
                        kRetryAfter);
    }
    found = transfers_.emplace(opened->key_, Transfer()).first;
  }
  if (found->second.is_open) return Busy("another call sends this import", kRetryAfter);
  found->second.is_open = true;
  found->second.last_used = now;
  opened->table_ = this;
  return opened;
}

void ImportTable::ForgetOld() {
  std::lock_guard<std::mutex> lock(mu_);
  ForgetOldLocked(absl::Now());
}

void ImportTable::ForgetOldLocked(absl::Time now) {
  std::erase_if(transfers_, [&](const auto& entry) {
    const Transfer& transfer = entry.second;
    const bool is_old = !transfer.is_open && now - transfer.last_used > limits_.keep;
    if (is_old) bytes_ -= static_cast<int64_t>(transfer.bytes.size());
    return is_old;
  });
}

int64_t ImportTable::BytesOfLocked(const std::string& principal) const {
  int64_t bytes = 0;
  for (auto it = transfers_.lower_bound(Key(principal, "")); it != transfers_.end() && it->first.first == principal;
       ++it) {
    bytes += static_cast<int64_t>(it->second.bytes.size());
  }
  return bytes;
}

ImportTable::Opened::~Opened() {
  if (table_ == nullptr) return;
  std::lock_guard<std::mutex> lock(table_->mu_);
  const auto found = table_->transfers_.find(key_);
  if (found == table_->transfers_.end()) return;
  found->second.is_open = false;
  if (found->second.bytes.empty()) table_->transfers_.erase(found);
}

absl::Status ImportTable::Opened::Append(int64_t offset, const std::string& data) {
  std::lock_guard<std::mutex> lock(table_->mu_);
  const Limits& limits = table_->limits_;
  Transfer& transfer = table_->transfers_[key_];
  const int64_t end = static_cast<int64_t>(transfer.bytes.size());
  const int64_t more = static_cast<int64_t>(data.size());
  if (offset != end) {
    return InvalidField("offset", absl::StrCat(offset), absl::StrCat(end, ", where the last part ended"));
  }
  if (table_->bytes_ + more > limits.max_bytes) {
    return Overloaded(absl::StrCat("imports under way fill the ", limits.max_bytes, " bytes that they may have"),
                      kRetryAfter);
  }
  if (table_->BytesOfLocked(key_.first) + more > limits.max_bytes_per_principal) {
    return Overloaded(absl::StrCat("imports of yours that are under way or broke off fill the ",
                                   limits.max_bytes_per_principal, " bytes that one caller's may have"),
                      kRetryAfter);
  }
  transfer.bytes += data;
  transfer.last_used = absl::Now();
  table_->bytes_ += more;
  return absl::OkStatus();
}

std::string ImportTable::Opened::Take() {
  ImportTable* const table = std::exchange(table_, nullptr);  // what is opened of that id from now on is another's
  std::lock_guard<std::mutex> lock(table->mu_);
  const auto found = table->transfers_.find(key_);
  if (found == table->transfers_.end()) return "";
  std::string bytes = std::move(found->second.bytes);
  table->bytes_ -= static_cast<int64_t>(bytes.size());
  table->transfers_.erase(found);
  return bytes;
}

}  // namespace statehouse
