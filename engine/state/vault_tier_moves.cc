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
    const absl::Time now = absl::Now();
    const auto due =
        std::find_if(queue_.begin(), queue_.end(), [now](const Move& move) { return move.not_before <= now; });
    if (due == queue_.end() || NextTry() > now) {
      absl::Time next = absl::InfiniteFuture();
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

absl::StatusOr<int64_t> VaultTier::WriteOne(const Move& move, const Writer& writer) {
  if (absl::Status status = MakeRoom(move.bytes); !status.ok()) return status;
  int64_t bytes = 0;
  const absl::Status status = blobs_->Put(BlobKeyOf(move.key), [&](const ByteSink& sink) {
    bytes = 0;
    return writer([&](std::span<const std::byte> part) {
      bytes += static_cast<int64_t>(part.size());
      return sink(part);
    });
  });
  // Of the store's own folders: the snapshot is here to be written.
  if (absl::IsNotFound(status)) return absl::UnavailableError(status.message());
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

VaultTier::Ending VaultTier::Finish(Move move, const absl::StatusOr<int64_t>& written, bool is_here) {
  const auto state = under_way_.find(move.key);
  const bool wanted = state->second;
  under_way_.erase(state);
  if (written.ok()) {
    health_.Succeeded();
    room_.Succeeded();
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
    room_.Failed(absl::Now(), status);
  }
  const bool ended = is_hopeless || !wanted || ++move.tries >= kMaxTries;
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
