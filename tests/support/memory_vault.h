// A SnapshotVault without threads or files: "disk" and "store" are maps of snapshot files, written when they are asked
// for or by Settle(). Faults: snapshots that are lost, damaged files, tiers that do not answer. Thread-safety: any
// thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/state/snapshot_file.h"
#include "engine/state/snapshot_vault.h"

namespace statehouse::testing {

class MemoryVault final : public SnapshotVault {
 public:
  MemoryVault(Fingerprint here, const SlotShape& shape) : here_(std::move(here)), shape_(shape) {}

  // --- what happens to it ---
  // All that is durable goes to disk, as movers would do in time.
  void Settle() {
    std::lock_guard<std::mutex> lock(mu_);
    for (const auto& [key, held] : host_) {
      if (held.durable) Write(key, kDisk);
    }
  }
  // The process ends: host memory is gone.
  void Crash() {
    std::lock_guard<std::mutex> lock(mu_);
    host_.clear();
  }
  // Leaves host memory, if it is somewhere else too.
  void Evict() {
    std::lock_guard<std::mutex> lock(mu_);
    std::erase_if(host_, [this](const auto& held) { return IsBelow(held.first); });
  }
  // Flips a byte of every file.
  void Damage() {
    std::lock_guard<std::mutex> lock(mu_);
    for (auto& tier : files_) {
      for (auto& [key, file] : tier) file[file.size() / 2] ^= std::byte{0x10};
    }
  }
  // Every key holds this one.
  void MixUp(const std::shared_ptr<const Snapshot>& snapshot) {
    std::lock_guard<std::mutex> lock(mu_);
    for (auto& [key, held] : host_) held.snapshot = snapshot;
  }
  void set_here(const Fingerprint& here) { here_ = here; }
  absl::Status flush_fails = absl::OkStatus();
  absl::Status fetch_fails = absl::OkStatus();
  int64_t flushes = 0;
  std::function<void(const std::string& key)> on_flush;     // what happens while one waits for it
  std::map<std::string, absl::Time, std::less<>> modified;  // files; those that are not here are of the infinite past
  int64_t size() const {
    std::lock_guard<std::mutex> lock(mu_);
    std::map<std::string, bool> keys;
    for (const auto& held : host_) keys[held.first] = true;
    for (const auto& tier : files_) {
      for (const auto& file : tier) keys[file.first] = true;
    }
    return static_cast<int64_t>(keys.size());
  }

  // --- SnapshotVault ---
  absl::Status Keep(const std::string& key, std::shared_ptr<const Snapshot> snapshot, bool durable) override {
    std::lock_guard<std::mutex> lock(mu_);
    host_[key] = {std::move(snapshot), durable};
    return absl::OkStatus();
  }
  absl::Status Flush(const std::string& key, bool shared, absl::Time) override {
    if (on_flush) on_flush(key);
    std::lock_guard<std::mutex> lock(mu_);
    ++flushes;
    if (!flush_fails.ok()) return flush_fails;
    if (files_[shared ? kStore : kDisk].contains(key)) return absl::OkStatus();
    if (!host_.contains(key)) return absl::NotFoundError("no such snapshot");
    Write(key, shared ? kStore : kDisk);
    return absl::OkStatus();
  }
  bool CanFlush(bool) const override { return !absl::IsFailedPrecondition(flush_fails); }
  absl::StatusOr<Fetched> Fetch(const std::string& key, bool allow_other_numeric) override {
    std::lock_guard<std::mutex> lock(mu_);
    if (const auto held = host_.find(key); held != host_.end()) {
      Fetched fetched;
      fetched.snapshot = held->second.snapshot;
      fetched.tier = Tier::kHost;
      return fetched;
    }
    if (!fetch_fails.ok()) return fetch_fails;
    for (const int place : {kDisk, kStore}) {
      const auto file = files_[place].find(key);
      if (file == files_[place].end()) continue;
      auto loaded = ReadSnapshot(file->second, key, here_, shape_, allow_other_numeric);
      if (!loaded.ok()) return loaded.status();
      host_[key] = {loaded->snapshot, true};
      return Fetched{.snapshot = loaded->snapshot,
                     .tier = place == kDisk ? Tier::kDisk : Tier::kStore,
                     .exactness = loaded->exactness,
                     .numeric_difference = loaded->numeric_difference};
    }
    return absl::NotFoundError("it is in no tier");
  }
  Tier Where(const std::string& key) const override {
    std::lock_guard<std::mutex> lock(mu_);
    if (host_.contains(key)) return Tier::kHost;
    if (files_[kDisk].contains(key)) return Tier::kDisk;
    return files_[kStore].contains(key) ? Tier::kStore : Tier::kNone;
  }
  absl::Status Drop(const std::string& key, Removed* removed) override {
    std::lock_guard<std::mutex> lock(mu_);
    removed->snapshots[static_cast<size_t>(Tier::kHost)] += static_cast<int64_t>(host_.erase(key));
    removed->snapshots[static_cast<size_t>(Tier::kDisk)] += static_cast<int64_t>(files_[kDisk].erase(key));
    removed->snapshots[static_cast<size_t>(Tier::kStore)] += static_cast<int64_t>(files_[kStore].erase(key));
    return absl::OkStatus();
  }
  absl::Status Verify(const std::string& key, Tier tier) override {
    std::lock_guard<std::mutex> lock(mu_);
    if (tier != Tier::kDisk && tier != Tier::kStore) return absl::NotFoundError("not there");
    const auto& files = files_[tier == Tier::kDisk ? kDisk : kStore];
    const auto file = files.find(key);
    if (file == files.end()) return absl::NotFoundError("not there");
    return ReadSnapshot(file->second, key, here_, shape_, true).status();
  }
  absl::StatusOr<std::vector<BlobInfo>> List(Tier tier, const std::string& after, int64_t limit) override {
    std::lock_guard<std::mutex> lock(mu_);
    std::vector<BlobInfo> blobs;
    const auto& files = files_[tier == Tier::kDisk ? kDisk : kStore];
    for (auto file = files.upper_bound(after); file != files.end(); ++file) {
      if (static_cast<int64_t>(blobs.size()) == limit) break;
      const auto at = modified.find(file->first);
      blobs.push_back({.key = file->first,
                       .bytes = static_cast<int64_t>(file->second.size()),
                       .modified = at == modified.end() ? absl::InfinitePast() : at->second});
    }
    return blobs;
  }
  std::array<TierTotals, kNumTiers> totals() const override { return {}; }

 private:
  static constexpr int kDisk = 0;
  static constexpr int kStore = 1;
  struct Held {
    std::shared_ptr<const Snapshot> snapshot;
    bool durable = false;
  };

  bool IsBelow(const std::string& key) const { return files_[kDisk].contains(key) || files_[kStore].contains(key); }
  void Write(const std::string& key, int place) {
    std::vector<std::byte>& file = files_[place][key];
    if (!file.empty()) return;
    (void)WriteSnapshot(*host_.at(key).snapshot, here_, [&file](std::span<const std::byte> bytes) {
      file.insert(file.end(), bytes.begin(), bytes.end());
      return absl::OkStatus();
    });
  }

  Fingerprint here_;
  const SlotShape shape_;
  mutable std::mutex mu_;
  std::map<std::string, Held> host_;
  std::map<std::string, std::vector<std::byte>> files_[2];
};

}  // namespace statehouse::testing
