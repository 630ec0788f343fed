// The movers of a tier.
#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/state/vault_tier.h"

namespace statehouse {
namespace {

// A move that failed so often is given up; the snapshot then goes with host memory.
constexpr int kMaxTries = 30;
// More than needed is dropped at a time, since finding out what may go looks at everything.
constexpr int64_t kRoomShare = 20;

}  // namespace

void VaultTier::RunMovers() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (queue_.empty()) {
      work_.wait(lock);
      continue;
    }
    if (const absl::Time next = NextTry(); next > absl::Now()) {
      work_.wait_until(lock, absl::ToChronoTime(next));
      continue;
    }
    Move move = std::move(queue_.front());
    queue_.pop_front();
    queued_bytes_ -= move.bytes;
    const std::string key = move.key;
    under_way_[key] = true;
    lock.unlock();
    const absl::StatusOr<int64_t> written = WriteOne(move);
    lock.lock();
    bool ended = false;
    bool undo = false;
    Finish(std::move(move), written, &ended, &undo);
    progress_.notify_all();
    if (!ended && !undo) continue;
    lock.unlock();
    int64_t bytes = 0;
    if (undo) Remove(key, &bytes).IgnoreError();  // what stays is garbage that no session refers to
    if (ended) source_->MoveEnded(key, options_.tier);
    lock.lock();
  }
}

absl::StatusOr<int64_t> VaultTier::WriteOne(const Move& move) {
  auto writer = source_->OpenForMove(move.key, options_.tier);
  if (!writer.ok()) return writer.status();
  if (absl::Status status = MakeRoom(move.bytes); !status.ok()) return status;
  int64_t bytes = 0;
  const std::string blob = absl::StrCat("snapshots/", move.key.substr(0, 2), "/", move.key);
  const absl::Status status = blobs_->Put(blob, [&](const ByteSink& sink) {
    bytes = 0;
    return (*writer)([&](std::span<const std::byte> part) {
      bytes += static_cast<int64_t>(part.size());
      return sink(part);
    });
  });
  if (!status.ok()) return status;
  return bytes;
}

absl::Status VaultTier::MakeRoom(int64_t bytes) {
  if (options_.max_bytes <= 0) return absl::OkStatus();
  std::vector<std::pair<uint64_t, std::string>> leaving;
  int64_t excess = 0;
  {
    const std::lock_guard lock(mutex_);
    if (known_bytes_ + bytes <= options_.max_bytes) return absl::OkStatus();
    excess = known_bytes_ + bytes - options_.max_bytes + options_.max_bytes / kRoomShare;
    for (const auto& [key, known] : known_) {
      const bool may_go = SnapshotVault::IsPrefixKey(key) || (below_ != nullptr && below_->Has(key));
      if (may_go) leaving.emplace_back(known.used, key);
    }
  }
  std::sort(leaving.begin(), leaving.end());
  for (const auto& [used, key] : leaving) {
    if (excess <= 0) break;
    int64_t removed = 0;
    if (absl::Status status = Remove(key, &removed); !status.ok()) return status;
    excess -= std::max<int64_t>(0, removed);
  }
  const std::lock_guard lock(mutex_);
  if (known_bytes_ + bytes <= options_.max_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("of the ", options_.max_bytes, " bytes that snapshots may take, ",
                                                   known_bytes_, " are taken by ones that are nowhere else; give it ",
                                                   "more space, or delete sessions"));
}

void VaultTier::Finish(Move move, const absl::StatusOr<int64_t>& written, bool* ended, bool* undo) {
  const auto state = under_way_.find(move.key);
  const bool wanted = state->second;
  under_way_.erase(state);
  if (written.ok()) {
    health_.Succeeded();
    room_.Succeeded();
    Learn(move.key, *written);
    *ended = true;
    *undo = !wanted;
    return;
  }
  absl::Status status = written.status();
  const bool is_gone = absl::IsNotFound(status);
  if (!is_gone) {
    Note(status);
    if (absl::IsResourceExhausted(status)) {
      ++errors_;
      room_.Failed(absl::Now(), status);
    }
  }
  for (Waiter* waiter : waiters_) {
    if (*waiter->key != move.key || !(is_gone || absl::IsResourceExhausted(status))) continue;
    waiter->is_done = true;
    waiter->outcome = Described(status);
  }
  if (is_gone || !wanted || ++move.tries >= kMaxTries) {
    *ended = true;
    return;
  }
  // Behind the others: one that cannot be written must not hold them up.
  queued_bytes_ += move.bytes;
  queue_.push_back(std::move(move));
}

}  // namespace statehouse
