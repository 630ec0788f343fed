// What callers ask of a tier; vault_tier_moves.cc is the movers' side.
#include "engine/state/vault_tier.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"

namespace statehouse {
namespace {

constexpr int kNumTimedCalls = 4;
// Snapshots of the prefix cache wait in this part of the room for those that wait.
constexpr int64_t kPrefixShare = 4;

// Does the status tell of the store rather than of the value?
bool IsStoreFailure(const absl::Status& status) {
  return !status.ok() && !absl::IsNotFound(status) && !absl::IsDataLoss(status) && !absl::IsInvalidArgument(status) &&
         !absl::IsResourceExhausted(status);
}

}  // namespace

VaultTier::VaultTier(const Options& options, BlobStore* blobs, Source* source, const VaultTier* below)
    : options_(options),
      blobs_(blobs),
      source_(source),
      below_(below),
      health_(options.first_pause, options.longest_pause),
      room_(options.first_pause, options.longest_pause),
      prefix_room_(options.first_pause, options.longest_pause) {
  if (options.timeout != absl::InfiniteDuration()) calls_ = std::make_unique<TimedCalls>(kNumTimedCalls);
  for (int mover = 0; mover < std::max(1, options.num_movers); ++mover) {
    const bool surveys = mover == 0 && options.survey;
    movers_.emplace_back([this, surveys] {
      if (surveys) Survey();
      RunMovers();
    });
  }
}

VaultTier::~VaultTier() { Stop(); }

// Two digits make a folder, so that none grows too long.
std::string VaultTier::BlobKeyOf(const std::string& key) { return absl::StrCat(kFolder, key.substr(0, 2), "/", key); }

std::string VaultTier::KeyOf(const std::string& blob) {
  std::string key = blob.substr(blob.rfind('/') + 1);
  return SnapshotVault::IsKey(key) && BlobKeyOf(key) == blob ? key : "";
}

void VaultTier::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  progress_.notify_all();
  for (std::thread& mover : movers_) mover.join();
  movers_.clear();
}

bool VaultTier::Enqueue(const std::string& key, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  return PutInLine(key, bytes, /*urgent=*/false);
}

bool VaultTier::HasRoomInLine(const std::string& key, int64_t bytes) const {
  const bool is_prefix = SnapshotVault::IsPrefixKey(key);
  const absl::Time now = absl::Now();
  if (is_prefix && std::max(NextTry(), prefix_room_.until()) > now) return false;
  const int64_t most = is_prefix ? options_.max_queued_bytes / kPrefixShare : options_.max_queued_bytes;
  return queued_bytes_ == 0 || queued_bytes_ + bytes <= most;
}

bool VaultTier::PutInLine(const std::string& key, int64_t bytes, bool urgent) {
  if (known_.contains(key) || under_way_.contains(key)) return true;
  const auto waits = std::find_if(queue_.begin(), queue_.end(), [&key](const Move& move) { return move.key == key; });
  if (waits != queue_.end()) {
    if (urgent) std::rotate(queue_.begin(), waits, waits + 1);
  } else {
    if (!urgent && !HasRoomInLine(key, bytes)) {
      ++skipped_;
      return false;
    }
    queue_.insert(urgent ? queue_.begin() : queue_.end(), Move{.key = key, .bytes = bytes, .why = {}});
    queued_bytes_ += bytes;
  }
  work_.notify_one();
  return true;
}

absl::Status VaultTier::MoveNow(const std::string& key, int64_t bytes, absl::Time deadline) {
  std::unique_lock lock(mutex_);
  Waiter waiter;
  waiter.key = &key;
  waiters_.push_back(&waiter);  // before it is in line, or its end might come too early to be noticed
  PutInLine(key, bytes, /*urgent=*/true);
  const auto in_line = [&] {
    return std::find_if(queue_.begin(), queue_.end(), [&key](const Move& move) { return move.key == key; });
  };
  while (!waiter.is_done && !stopping_) {
    const auto waits = in_line();
    const bool is_under_way = under_way_.contains(key);
    if (known_.contains(key)) {
      waiter.is_done = true;
    } else if (!is_under_way && waits == queue_.end()) {
      waiter.is_done = true;
      waiter.outcome = absl::NotFoundError("the snapshot is in no tier");
    } else if (absl::Now() >= deadline || (!is_under_way && std::max(waits->not_before, NextTry()) > deadline)) {
      break;
    } else {
      progress_.wait_until(lock, absl::ToChronoTime(std::min(deadline, absl::Now() + absl::Seconds(1))));
    }
  }
  std::erase(waiters_, &waiter);
  if (waiter.is_done) return waiter.outcome;
  if (stopping_) return absl::UnavailableError("the vault is being closed");
  const auto waits = in_line();
  if (waits != queue_.end() && waits->not_before > absl::InfinitePast()) {
    return absl::UnavailableError(absl::StrCat("the snapshot cannot be read to be moved: ", waits->why.message()));
  }
  const absl::Time now = absl::Now();
  const BackOff& cause = health_.why().ok() ? room_ : health_;
  if (cause.why().ok()) {
    return absl::UnavailableError(
        absl::StrCat(blobs_->name(), ": the snapshot is not written yet; ", queue_.size(), " others wait in line"));
  }
  return absl::Status(absl::IsResourceExhausted(cause.why()) ? cause.why().code() : absl::StatusCode::kUnavailable,
                      absl::StrCat(blobs_->name(), ": ", cause.Describe(now)));
}

bool VaultTier::Has(const std::string& key) const {
  const std::lock_guard lock(mutex_);
  return known_.contains(key);
}

bool VaultTier::is_surveyed() const {
  const std::lock_guard lock(mutex_);
  return surveyed_;
}

// A file that is read as it is used, by several threads perhaps: all of it counts as one call.
class VaultTier::NotedSource final : public ByteSource {
 public:
  NotedSource(VaultTier* tier, std::unique_ptr<ByteSource> source) : tier_(tier), source_(std::move(source)) {}
  ~NotedSource() override {
    const std::lock_guard lock(tier_->mutex_);
    if (was_read_ && !has_failed_) tier_->Note(absl::OkStatus());
  }

  int64_t size() const override { return source_->size(); }
  absl::StatusOr<std::span<const std::byte>> View(int64_t offset, std::span<std::byte> scratch) const override {
    auto bytes = source_->View(offset, scratch);
    if (bytes.ok()) {
      was_read_.store(true, std::memory_order_relaxed);
      return bytes;
    }
    const std::lock_guard lock(tier_->mutex_);
    if (!std::exchange(has_failed_, true)) tier_->Note(bytes.status());
    return tier_->Described(bytes.status());
  }

 private:
  VaultTier* const tier_;
  const std::unique_ptr<ByteSource> source_;
  mutable std::atomic<bool> was_read_{false};
  mutable bool has_failed_ = false;  // guarded by the tier's mutex
};

absl::StatusOr<std::unique_ptr<ByteSource>> VaultTier::Open(const std::string& key) {
  auto file = std::make_shared<std::unique_ptr<ByteSource>>();
  const bool all = calls_ != nullptr;
  const auto open = [blobs = blobs_, blob = BlobKeyOf(key), file, all] {
    auto opened = blobs->Open(blob);
    if (opened.ok() && all) opened = ReadIntoMemory(*std::move(opened));
    if (!opened.ok()) return opened.status();
    *file = *std::move(opened);
    return absl::OkStatus();
  };
  const absl::Status status = Call(open, all);
  const std::lock_guard lock(mutex_);
  if (absl::IsNotFound(status)) Forget(key);
  if (!status.ok()) return status;
  Learn(key, (*file)->size());
  if (all) return std::move(*file);
  return std::make_unique<NotedSource>(this, std::move(*file));
}

absl::StatusOr<BlobInfo> VaultTier::Stat(const std::string& key) {
  auto info = std::make_shared<BlobInfo>();
  const absl::Status status = Call([blobs = blobs_, blob = BlobKeyOf(key), info] {
    auto got = blobs->Stat(blob);
    if (!got.ok()) return got.status();
    *info = *std::move(got);
    return absl::OkStatus();
  });
  const std::lock_guard lock(mutex_);
  if (absl::IsNotFound(status)) Forget(key);
  if (!status.ok()) return status;
  Learn(key, info->bytes);
  info->key = key;
  return *info;
}

void VaultTier::TakeBackMove(const std::string& key) {
  std::erase_if(queue_, [this, &key](const Move& move) {
    if (move.key == key) queued_bytes_ -= move.bytes;
    return move.key == key;
  });
  if (const auto move = under_way_.find(key); move != under_way_.end()) move->second = false;
  progress_.notify_all();
}

absl::Status VaultTier::Remove(const std::string& key, int64_t* bytes) {
  *bytes = -1;
  {
    const std::lock_guard lock(mutex_);
    TakeBackMove(key);
  }
  const auto info = Stat(key);
  if (absl::IsNotFound(info.status())) return absl::OkStatus();
  if (!info.ok()) return info.status();
  *bytes = info->bytes;
  absl::Status status = Call([blobs = blobs_, blob = BlobKeyOf(key)] { return blobs->Remove(blob); });
  if (!status.ok()) return status;
  const std::lock_guard lock(mutex_);
  Forget(key);
  return absl::OkStatus();
}

absl::Status VaultTier::Quarantine(const std::string& key) {
  absl::Status status = Call([blobs = blobs_, blob = BlobKeyOf(key)] { return blobs->Quarantine(blob); });
  const std::lock_guard lock(mutex_);
  ++errors_;
  Forget(key);
  return status;
}

absl::StatusOr<std::vector<BlobInfo>> VaultTier::List(const std::string& after, int64_t limit) {
  std::vector<BlobInfo> found;
  std::string blob_after = after.empty() ? "" : BlobKeyOf(after);
  while (static_cast<int64_t>(found.size()) < limit) {
    auto page = std::make_shared<std::vector<BlobInfo>>();
    const int64_t left = limit - static_cast<int64_t>(found.size());
    const absl::Status status = Call([blobs = blobs_, blob_after, left, page] {
      auto got = blobs->List(kFolder, blob_after, left);
      if (!got.ok()) return got.status();
      *page = *std::move(got);
      return absl::OkStatus();
    });
    if (!status.ok()) return status;
    if (page->empty()) break;
    const bool is_last = static_cast<int64_t>(page->size()) < left;
    blob_after = page->back().key;
    for (BlobInfo& info : *page) {
      info.key = KeyOf(info.key);
      if (!info.key.empty()) found.push_back(std::move(info));
    }
    if (is_last) break;
  }
  return found;
}

void VaultTier::CountHit() {
  const std::lock_guard lock(mutex_);
  ++hits_;
}

SnapshotVault::TierTotals VaultTier::totals() const {
  const std::lock_guard lock(mutex_);
  SnapshotVault::TierTotals totals;
  totals.snapshots = static_cast<int64_t>(known_.size());
  totals.bytes = known_bytes_;
  totals.hits = hits_;
  totals.errors = errors_;
  totals.waiting = static_cast<int64_t>(queue_.size() + under_way_.size());
  totals.skipped = skipped_;
  const BackOff& cause = health_.why().ok() ? room_ : health_;
  totals.available = health_.why().ok();
  if (!cause.why().ok()) totals.why_not = cause.Describe(absl::Now());
  return totals;
}

absl::Status VaultTier::Call(std::function<absl::Status()> call, bool is_all) {
  {
    const std::lock_guard lock(mutex_);
    if (!health_.MayTry(absl::Now())) {
      return absl::UnavailableError(absl::StrCat(blobs_->name(), ": ", health_.Describe(absl::Now())));
    }
  }
  const absl::Status status = calls_ == nullptr ? call() : calls_->Run(std::move(call), options_.timeout);
  const std::lock_guard lock(mutex_);
  if (is_all || !status.ok()) Note(status);
  return Described(status);
}

// Whatever hinders the store itself is UNAVAILABLE to the vault's callers.
absl::Status VaultTier::Described(const absl::Status& status) const {
  if (status.ok()) return status;
  const auto code = IsStoreFailure(status) ? absl::StatusCode::kUnavailable : status.code();
  return absl::Status(code, absl::StrCat(blobs_->name(), ": ", status.message()));
}

void VaultTier::Note(const absl::Status& status) {
  if (IsStoreFailure(status)) {
    ++errors_;
    health_.Failed(absl::Now(), status);
  } else {
    health_.Succeeded();
  }
}

void VaultTier::Learn(const std::string& key, int64_t bytes) {
  Known& known = known_[key];
  known_bytes_ += bytes - known.bytes;
  known = {.bytes = bytes, .used = ++tick_};
}

int64_t VaultTier::Forget(const std::string& key) {
  const auto found = known_.find(key);
  if (found == known_.end()) return 0;
  const int64_t bytes = found->second.bytes;
  known_bytes_ -= bytes;
  known_.erase(found);
  return bytes;
}

absl::Time VaultTier::NextTry() const { return std::max(health_.until(), room_.until()); }

}  // namespace statehouse
