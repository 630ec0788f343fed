#include "engine/state/snapshot_vault.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/random_id.h"
#include "engine/state/host_pool.h"
#include "engine/state/snapshot_file.h"
#include "engine/state/vault_tier.h"

namespace statehouse {
namespace {

constexpr size_t kKeyDigits = 32;

absl::Status CheckKey(const std::string& key) {
  if (SnapshotVault::IsKey(key)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("\"", key, "\" is no key of a snapshot: 32 hexadecimal digits, or p and 31"));
}

absl::Status NowhereError(const std::string& key) {
  return absl::NotFoundError(absl::StrCat("snapshot ", key, " is in no tier"));
}

absl::Status CopyTo(const ByteSource& file, const ByteSink& sink) {
  constexpr int64_t kPiece = int64_t{1} << 20;
  std::vector<std::byte> scratch(static_cast<size_t>(kPiece));
  for (int64_t at = 0; at < file.size(); at += kPiece) {
    const size_t count = static_cast<size_t>(std::min(kPiece, file.size() - at));
    const auto bytes = file.View(at, std::span(scratch).first(count));
    if (!bytes.ok()) return bytes.status();
    if (absl::Status status = sink(*bytes); !status.ok()) return status;
  }
  return absl::OkStatus();
}

class TieredVault final : public SnapshotVault, public VaultTier::Source {
 public:
  TieredVault(const SnapshotVaultOptions& options, const Fingerprint& here, const SlotShape& shape, BlobStore* disk,
              BlobStore* store)
      : here_(here), shape_(shape), memory_(options.memory), pool_(options.host_bytes) {
    VaultTier::Options tier;
    tier.max_queued_bytes = options.max_queued_bytes > 0 ? options.max_queued_bytes : options.host_bytes;
    tier.num_movers = options.num_movers;
    tier.first_pause = options.first_pause;
    tier.longest_pause = options.longest_pause;
    if (store != nullptr) {
      tier.tier = Tier::kStore;
      tier.timeout = options.fetch_timeout;
      store_ = std::make_unique<VaultTier>(tier, store, this, nullptr);
    }
    if (disk != nullptr) {
      tier.tier = Tier::kDisk;
      tier.max_bytes = options.disk_bytes;
      tier.timeout = absl::InfiniteDuration();
      tier.survey = true;
      disk_ = std::make_unique<VaultTier>(tier, disk, this, store_.get());
    }
  }
  ~TieredVault() override {
    // The movers of each look at the other.
    if (disk_ != nullptr) disk_->Stop();
    if (store_ != nullptr) store_->Stop();
  }

  absl::Status Keep(const std::string& key, std::shared_ptr<const Snapshot> snapshot, bool durable) override {
    if (absl::Status status = CheckKey(key); !status.ok()) return status;
    if (durable && IsPrefixKey(key)) return KeepPrefix(key, std::move(snapshot));
    const int64_t bytes = snapshot->bytes();
    VaultTier* const store = StoreFor(key);
    const bool moves = durable && (disk_ != nullptr || store != nullptr);
    // In the pool before it is in a queue, or a mover would not find it.
    Add(key, {.snapshot = std::move(snapshot), .exactness = Exactness::kExact, .numeric_difference = ""}, moves);
    if (!moves) return absl::OkStatus();
    bool queued = false;
    if (disk_ != nullptr) queued = disk_->Enqueue(key, bytes);
    if (store != nullptr) queued = store->Enqueue(key, bytes) || queued;
    // Held for a move only: not if there is none, nor if it has been there before.
    if (!queued || (disk_ != nullptr && disk_->Has(key)) || (store != nullptr && store->Has(key))) LetGo(key);
    return absl::OkStatus();
  }

  absl::Status Flush(const std::string& key, bool shared, absl::Time deadline) override {
    if (absl::Status status = CheckKey(key); !status.ok()) return status;
    VaultTier* const target = shared || disk_ == nullptr ? store_.get() : disk_.get();
    if (target == nullptr) {
      return absl::FailedPreconditionError(shared ? "there is no shared store to keep snapshots in"
                                                  : "there is neither a disk nor a store to keep snapshots in");
    }
    if (target->Has(key) || (!shared && store_ != nullptr && store_->Has(key))) return absl::OkStatus();
    int64_t bytes = 0;
    if (const auto item = InPool(key); item.snapshot != nullptr) {
      bytes = item.snapshot->bytes();
    } else {
      // Perhaps another server or an earlier process put it there.
      const auto info = target->Stat(key);
      if (info.ok() || !absl::IsNotFound(info.status())) return info.status();
      VaultTier* const other = target == store_.get() ? disk_.get() : store_.get();
      const absl::StatusOr<BlobInfo> elsewhere = other == nullptr ? NowhereError(key) : other->Stat(key);
      if (!elsewhere.ok()) return elsewhere.status();
      if (!shared) return absl::OkStatus();
      bytes = elsewhere->bytes;
    }
    return target->MoveNow(key, bytes, deadline);
  }

  bool CanFlush(bool shared) const override { return store_ != nullptr || (!shared && disk_ != nullptr); }

  absl::StatusOr<Fetched> Fetch(const std::string& key, bool allow_other_numeric) override {
    if (absl::Status status = CheckKey(key); !status.ok()) return status;
    if (const HostPool::Item item = UseInPool(key); item.snapshot != nullptr) {
      if (item.exactness != Exactness::kExact && !allow_other_numeric) {
        return OtherNumericMode(NameOf(Tier::kHost, key), item.numeric_difference);
      }
      return Fetched{item.snapshot, Tier::kHost, item.exactness, item.numeric_difference};
    }
    absl::Status worst = NowhereError(key);
    for (const auto& [tier, below] : {std::pair{Tier::kDisk, disk_.get()}, std::pair{Tier::kStore, StoreFor(key)}}) {
      if (below == nullptr || (below->is_surveyed() && !below->Has(key))) continue;
      absl::StatusOr<Fetched> fetched = FetchFrom(below, tier, key, allow_other_numeric);
      if (fetched.ok() || absl::IsFailedPrecondition(fetched.status())) return fetched;
      if (!absl::IsNotFound(fetched.status())) {
        worst = absl::IsNotFound(worst)
                    ? fetched.status()
                    : absl::Status(worst.code(), absl::StrCat(worst.message(), "; ", fetched.status().message()));
      }
    }
    return worst;
  }

  Tier Where(const std::string& key) const override {
    {
      const std::lock_guard lock(mutex_);
      if (pool_.Find(key) != nullptr) return Tier::kHost;
    }
    if (disk_ != nullptr && disk_->Has(key)) return Tier::kDisk;
    return store_ != nullptr && store_->Has(key) ? Tier::kStore : Tier::kNone;
  }

  absl::Status Drop(const std::string& key, Removed* removed) override {
    if (absl::Status status = CheckKey(key); !status.ok()) return status;
    const auto count = [removed](Tier tier, int64_t bytes) {
      if (bytes < 0) return;
      ++removed->snapshots[static_cast<int>(tier)];
      removed->bytes[static_cast<int>(tier)] += bytes;
    };
    HostPool::Freed freed;
    {
      const std::lock_guard lock(mutex_);
      count(Tier::kHost, pool_.Remove(key, &freed));
    }
    absl::Status worst;
    for (const auto& [tier, below] : {std::pair{Tier::kDisk, disk_.get()}, std::pair{Tier::kStore, StoreFor(key)}}) {
      if (below == nullptr) continue;
      int64_t bytes = -1;
      const absl::Status status = below->Remove(key, &bytes);
      if (status.ok()) count(tier, bytes);
      worst.Update(status);
    }
    return worst;
  }

  void DropLater(const std::string& key) override {
    if (!IsKey(key)) return;
    Leave(key);
    if (disk_ != nullptr) disk_->RemoveLater(key);
    if (VaultTier* const store = StoreFor(key); store != nullptr) store->RemoveLater(key);
  }

  absl::Status Verify(const std::string& key, Tier tier) override {
    if (absl::Status status = CheckKey(key); !status.ok()) return status;
    if (tier == Tier::kHost) return InPool(key).snapshot != nullptr ? absl::OkStatus() : NowhereError(key);
    VaultTier* const below = BelowOf(tier);
    if (below == nullptr) return NowhereError(key);
    const auto file = below->Open(key);
    if (!file.ok()) return file.status();
    return ReadSnapshot(**file, NameOf(tier, key), here_, shape_, true).status();
  }

  absl::StatusOr<std::vector<BlobInfo>> List(Tier tier, const std::string& after, int64_t limit) override {
    VaultTier* const below = BelowOf(tier);
    if (below == nullptr) return std::vector<BlobInfo>();
    return below->List(after, limit);
  }

  std::array<TierTotals, kNumTiers> totals() const override {
    std::array<TierTotals, kNumTiers> totals;
    {
      const std::lock_guard lock(mutex_);
      TierTotals& host = totals[static_cast<int>(Tier::kHost)];
      host.snapshots = pool_.size();
      host.bytes = pool_.bytes();
      host.hits = host_hits_;
    }
    if (disk_ != nullptr) totals[static_cast<int>(Tier::kDisk)] = disk_->totals();
    if (store_ != nullptr) totals[static_cast<int>(Tier::kStore)] = store_->totals();
    return totals;
  }

 private:
  static std::string NameOf(Tier tier, const std::string& key) {
    return absl::StrCat("snapshot ", key, " on ", TierName(tier));
  }
  // Null: the key's snapshots do not go there.
  VaultTier* StoreFor(const std::string& key) const { return IsPrefixKey(key) ? nullptr : store_.get(); }
  VaultTier* BelowOf(Tier tier) const {
    return tier == Tier::kDisk ? disk_.get() : tier == Tier::kStore ? store_.get() : nullptr;
  }

  absl::Status KeepPrefix(const std::string& key, std::shared_ptr<const Snapshot> snapshot) {
    if (disk_ == nullptr) return absl::FailedPreconditionError("there is no disk to keep snapshots of prefixes on");
    const int64_t bytes = snapshot->bytes();
    Add(key, {.snapshot = std::move(snapshot), .exactness = Exactness::kExact, .numeric_difference = ""}, true);
    if (disk_->Enqueue(key, bytes)) return absl::OkStatus();
    Leave(key);
    return absl::ResourceExhaustedError("the disk takes no snapshots of prefixes now");
  }

  void Add(const std::string& key, HostPool::Item item, bool held) {
    HostPool::Freed freed;
    const std::lock_guard lock(mutex_);
    pool_.Add(key, std::move(item), held, &freed);
  }
  void LetGo(const std::string& key) {
    HostPool::Freed freed;
    const std::lock_guard lock(mutex_);
    pool_.LetGo(key, &freed);
  }
  void Leave(const std::string& key) {
    HostPool::Freed freed;
    const std::lock_guard lock(mutex_);
    pool_.Remove(key, &freed);
  }
  HostPool::Item InPool(const std::string& key) const {
    const std::lock_guard lock(mutex_);
    const HostPool::Item* const item = pool_.Find(key);
    return item == nullptr ? HostPool::Item() : *item;
  }
  HostPool::Item UseInPool(const std::string& key) {
    const std::lock_guard lock(mutex_);
    const HostPool::Item* const item = pool_.Use(key);
    if (item == nullptr) return {};
    ++host_hits_;
    return *item;
  }

  absl::StatusOr<Fetched> FetchFrom(VaultTier* below, Tier tier, const std::string& key, bool allow_other_numeric) {
    const auto file = below->Open(key);
    if (!file.ok() && !absl::IsDataLoss(file.status())) return file.status();
    auto loaded = file.ok() ? ReadSnapshot(**file, NameOf(tier, key), here_, shape_, allow_other_numeric, memory_.get())
                            : absl::StatusOr<LoadedSnapshot>(file.status());
    if (absl::IsDataLoss(loaded.status())) {
      const absl::Status aside = below->Quarantine(key);
      return absl::DataLossError(absl::StrCat(
          loaded.status().message(), aside.ok() ? "; it is in quarantine now" : "; it could not be put aside: ",
          aside.ok() ? "" : std::string(aside.message())));
    }
    if (!loaded.ok()) return loaded.status();
    below->CountHit();
    // The prefix cache holds its own, within its own memory.
    if (!IsPrefixKey(key)) Add(key, {loaded->snapshot, loaded->exactness, loaded->numeric_difference}, false);
    return Fetched{loaded->snapshot, tier, loaded->exactness, loaded->numeric_difference};
  }

  // --- VaultTier::Source, on mover threads ---
  absl::StatusOr<VaultTier::Writer> OpenForMove(const std::string& key, Tier to) override {
    const HostPool::Item item = InPool(key);
    if (item.snapshot != nullptr && item.exactness == Exactness::kExact) {
      return VaultTier::Writer(
          [this, snapshot = item.snapshot](const ByteSink& sink) { return WriteSnapshot(*snapshot, here_, sink); });
    }
    // A copy of the file: host memory has it no more, or has it from a machine of another numeric mode.
    VaultTier* const from = to == Tier::kStore ? disk_.get() : StoreFor(key);
    if (from == nullptr) return NowhereError(key);
    auto file = from->Open(key);
    if (file.ok()) file = ReadIntoMemory(*std::move(file));
    if (!file.ok()) return file.status();
    return VaultTier::Writer([file = std::shared_ptr<const ByteSource>(*std::move(file))](const ByteSink& sink) {
      return CopyTo(*file, sink);
    });
  }
  void MoveEnded(const std::string& key, Tier) override {
    if (IsPrefixKey(key)) {
      Leave(key);
    } else {
      LetGo(key);
    }
  }

  const Fingerprint here_;
  const SlotShape shape_;
  const std::shared_ptr<SnapshotMemory> memory_;  // may be null
  mutable std::mutex mutex_;
  HostPool pool_;
  int64_t host_hits_ = 0;
  std::unique_ptr<VaultTier> store_;
  std::unique_ptr<VaultTier> disk_;
};

}  // namespace

void SnapshotVault::DropLater(const std::string& key) {
  Removed removed;
  Drop(key, &removed).IgnoreError();
}

bool SnapshotVault::IsKey(const std::string& text) {
  return IsPrefixKey(text) ? IsHex(std::string_view(text).substr(1), kKeyDigits - 1) : IsHex(text, kKeyDigits);
}

std::string SnapshotVault::NewKey() { return RandomHex(kKeyDigits); }

std::string SnapshotVault::NewPrefixKey() {
  std::string key = NewKey();
  key[0] = 'p';
  return key;
}

absl::StatusOr<std::unique_ptr<SnapshotVault>> SnapshotVault::Create(const SnapshotVaultOptions& options,
                                                                     const Fingerprint& here, const SlotShape& shape,
                                                                     BlobStore* disk, BlobStore* store) {
  if (options.host_bytes < 0 || options.disk_bytes < 0 || options.max_queued_bytes < 0) {
    return absl::InvalidArgumentError("the bytes that snapshots may take must be >= 0");
  }
  if (options.fetch_timeout <= absl::ZeroDuration() || options.first_pause <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("times of the snapshot vault must be > 0");
  }
  return std::make_unique<TieredVault>(options, here, shape, disk, store);
}

}  // namespace statehouse
