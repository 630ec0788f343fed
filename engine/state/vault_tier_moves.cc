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
constexpr int64_t kSurveyPage = 4096;

}  // namespace

void VaultTier::Survey() {
  std::string after;
  while (true) {
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
    }
    auto page = blobs_->List(kFolder, after, kSurveyPage);
    const std::lock_guard lock(mutex_);
    if (!page.ok()) {
      // Not knowing costs a look-up per fetch; the next operation finds out whether the tier works.
      Note(page.status());
      return;
    }
    for (const BlobInfo& info : *page) {
      const std::string key = KeyOf(info.key);
      if (key.empty()) continue;
      // Of a prefix cache that ended without removing it: nobody will ask for it.
      const bool is_left = SnapshotVault::IsPrefixKey(key) && !known_.contains(key) && !under_way_.contains(key);
      if (is_left) removals_.push_back(key);
      Learn(key, info.bytes);
    }
    if (static_cast<int64_t>(page->size()) < kSurveyPage) {
      surveyed_ = true;
      return;
    }
    after = page->back().key;
  }
}

void VaultTier::RunMovers() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const absl::Time now = absl::Now();
    const auto due =
        std::find_if(queue_.begin(), queue_.end(), [now](const Move& move) { return move.not_before <= now; });
    const bool may_move = due != queue_.end() && NextTry() <= now;
    // What goes comes first, since it makes room, unless somebody waits.
    if (!removals_.empty() && health_.MayTry(now) && (!may_move || waiters_.empty())) {
      RemoveOne(&lock);
      continue;
    }
    if (!may_move) {
      absl::Time next = removals_.empty() ? absl::InfiniteFuture() : health_.until();
      for (const Move& move : queue_) next = std::min(next, std::max(move.not_before, NextTry()));
      if (next == absl::InfiniteFuture()) {
        work_.wait(lock);
      } else {
        work_.wait_until(lock, absl::ToChronoTime(next));
      }
      continue;
    }
    Move move = std::move(*due);
    queue_.erase(due);
    queued_bytes_ -= move.bytes;
    const std::string key = move.key;
    under_way_[key] = true;
    lock.unlock();
    const auto writer = source_->OpenForMove(key, options_.tier);
    const absl::StatusOr<int64_t> written = writer.ok() ? WriteOne(move, *writer) : writer.status();
    lock.lock();
    const Ending ending = Finish(std::move(move), written, writer.ok());
    progress_.notify_all();
    if (!ending.ended && !ending.undo) continue;
    lock.unlock();
    int64_t bytes = 0;
    if (ending.undo) Remove(key, &bytes).IgnoreError();  // what stays is garbage that no session refers to
    if (ending.ended) source_->MoveEnded(key, options_.tier);
    lock.lock();
  }
}

void VaultTier::RemoveLater(const std::string& key) {
  const std::lock_guard lock(mutex_);
  TakeBackMove(key);
  removals_.push_back(key);
  work_.notify_one();
}

void VaultTier::RemoveOne(std::unique_lock<std::mutex>* lock) {
  const std::string key = std::move(removals_.front());
  removals_.pop_front();
  lock->unlock();
  int64_t bytes = 0;
  const absl::Status status = Remove(key, &bytes);
  lock->lock();
  // Again when the store answers, after the back-off that this has begun. A file that is there and cannot go is left to
  // the next start: trying it again and again would keep the tier in back-off.
  const bool is_stuck = bytes >= 0;
  if (absl::IsUnavailable(status) && !is_stuck) removals_.push_back(key);
}

absl::StatusOr<int64_t> VaultTier::WriteOne(const Move& move, const Writer& writer) {
  if (absl::Status status = MakeRoom(move.key, move.bytes); !status.ok()) return status;
  while (true) {
    int64_t bytes = 0;
    const absl::Status status = blobs_->Put(BlobKeyOf(move.key), [&](const ByteSink& sink) {
      bytes = 0;
      return writer([&](std::span<const std::byte> part) {
        bytes += static_cast<int64_t>(part.size());
        return sink(part);
      });
    });
    if (status.ok()) return bytes;
    // Of the store's own folders: the snapshot is here to be written.
    if (absl::IsNotFound(status)) return absl::UnavailableError(status.message());
    if (!absl::IsResourceExhausted(status)) return status;
    const absl::StatusOr<bool> dropped = DropPrefixes(move.bytes);
    // A prefix is not tried again: what was freed is for records, which cannot wait for room.
    if (!dropped.ok() || !*dropped || SnapshotVault::IsPrefixKey(move.key)) return status;
  }
}

absl::StatusOr<int64_t> VaultTier::RemoveUntil(const std::vector<std::string>& keys, int64_t bytes) {
  int64_t freed = 0;
  for (const std::string& key : keys) {
    if (freed >= bytes) break;
    int64_t removed = 0;
    if (absl::Status status = Remove(key, &removed); !status.ok()) return status;
    freed += std::max<int64_t>(0, removed);
  }
  return freed;
}

absl::StatusOr<bool> VaultTier::DropPrefixes(int64_t bytes) {
  std::vector<std::pair<uint64_t, std::string>> leaving;
  int64_t all = 0;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, known] : known_) {
      if (!SnapshotVault::IsPrefixKey(key)) continue;
      leaving.emplace_back(known.used, key);
      all += known.bytes;
    }
  }
  std::sort(leaving.begin(), leaving.end());
  std::vector<std::string> keys;
  for (auto& [used, key] : leaving) keys.push_back(std::move(key));
  const auto freed = RemoveUntil(keys, std::max(bytes, all / kRoomShare));
  if (!freed.ok()) return freed.status();
  return !keys.empty();
}

absl::Status VaultTier::MakeRoom(const std::string& key, int64_t bytes) {
  if (options_.max_bytes <= 0) return absl::OkStatus();
  const bool is_prefix = SnapshotVault::IsPrefixKey(key);
  std::vector<std::pair<std::pair<bool, uint64_t>, std::string>> leaving;  // those of the prefix cache first
  int64_t excess = 0;
  {
    const std::lock_guard lock(mutex_);
    if (known_bytes_ + bytes <= options_.max_bytes) return absl::OkStatus();
    int64_t of_prefixes = 0;
    for (const auto& [other, known] : known_) {
      const bool is_of_prefix = SnapshotVault::IsPrefixKey(other);
      const bool may_go = is_of_prefix || (!is_prefix && below_ != nullptr && below_->Has(other));
      if (may_go) leaving.push_back({{!is_of_prefix, known.used}, other});
      of_prefixes += is_of_prefix ? known.bytes : 0;
    }
    excess = known_bytes_ + bytes - options_.max_bytes + (is_prefix ? of_prefixes : options_.max_bytes) / kRoomShare;
  }
  std::sort(leaving.begin(), leaving.end());
  std::vector<std::string> keys;
  for (auto& [turn, other] : leaving) keys.push_back(std::move(other));
  if (const auto freed = RemoveUntil(keys, excess); !freed.ok()) return freed.status();
  const std::lock_guard lock(mutex_);
  if (known_bytes_ + bytes <= options_.max_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("of the ", options_.max_bytes, " bytes that snapshots may take, ",
                                                   known_bytes_, " are taken by ones that are nowhere else; give it ",
                                                   "more space, or delete sessions"));
}

VaultTier::Ending VaultTier::Finish(Move move, const absl::StatusOr<int64_t>& written, bool is_here) {
  const auto state = under_way_.find(move.key);
  const bool wanted = state->second;
  const bool is_prefix = SnapshotVault::IsPrefixKey(move.key);
  BackOff& room = is_prefix ? prefix_room_ : room_;
  under_way_.erase(state);
  if (written.ok()) {
    health_.Succeeded();
    room.Succeeded();
    Learn(move.key, *written);
    return {.ended = true, .undo = !wanted};
  }
  const absl::Status& status = written.status();
  const bool is_full = is_here && absl::IsResourceExhausted(status);
  // Nothing is left to move, or no further try would find anything else.
  const bool is_hopeless = absl::IsNotFound(status) || absl::IsDataLoss(status) || absl::IsInvalidArgument(status) ||
                           absl::IsFailedPrecondition(status);
  if (is_here) Note(status);
  if (is_full) {
    ++errors_;
    room.Failed(absl::Now(), status);
  }
  // A snapshot of the prefix cache waits for no room.
  const bool ended = is_hopeless || !wanted || (is_full && is_prefix) || ++move.tries >= kMaxTries;
  for (Waiter* waiter : waiters_) {
    if (*waiter->key != move.key || !wanted || !(ended || is_full)) continue;
    waiter->is_done = true;
    waiter->outcome = is_here ? Described(status) : status;
  }
  if (ended) return {.ended = true};
  if (!is_here) {
    const absl::Duration pause = options_.first_pause * static_cast<double>(int64_t{1} << move.tries);
    move.not_before = absl::Now() + std::min(options_.longest_pause, pause);
    move.why = status;
  } else {
    move.not_before = absl::InfinitePast();
  }
  // Behind the others: one that cannot be written must not hold them up.
  queued_bytes_ += move.bytes;
  queue_.push_back(std::move(move));
  work_.notify_one();
  return {};
}

}  // namespace statehouse
