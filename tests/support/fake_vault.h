// A SnapshotVault of one tier, "disk", that does what a test says. Thread-safety: any thread, but for what a test sets
// and reads.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/state/snapshot_vault.h"

namespace statehouse::testing {

class FakeVault final : public SnapshotVault {
 public:
  absl::Status Keep(const std::string& key, std::shared_ptr<const Snapshot> snapshot, bool) override {
    if (full) return absl::ResourceExhaustedError("full");
    std::lock_guard<std::mutex> lock(mu_);
    kept[key] = std::move(snapshot);
    return absl::OkStatus();
  }
  absl::Status Flush(const std::string&, bool, absl::Time) override { return absl::OkStatus(); }
  bool CanFlush(bool) const override { return true; }
  absl::StatusOr<Fetched> Fetch(const std::string& key, bool) override {
    ++fetches;
    if (on_fetch) on_fetch();
    if (!broken.ok()) return broken;
    std::lock_guard<std::mutex> lock(mu_);
    const auto found = kept.find(key);
    if (found == kept.end()) return absl::NotFoundError("no such snapshot");
    Fetched fetched;
    fetched.snapshot = found->second;
    fetched.tier = Tier::kDisk;
    return fetched;
  }
  Tier Where(const std::string& key) const override {
    std::lock_guard<std::mutex> lock(mu_);
    return kept.contains(key) ? Tier::kDisk : Tier::kNone;
  }
  absl::Status Drop(const std::string& key, Removed*) override {
    std::lock_guard<std::mutex> lock(mu_);
    kept.erase(key);
    return absl::OkStatus();
  }
  absl::Status Verify(const std::string&, Tier) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<BlobInfo>> List(Tier, const std::string&, int64_t) override {
    return std::vector<BlobInfo>();
  }
  std::array<TierTotals, kNumTiers> totals() const override { return {}; }

  std::map<std::string, std::shared_ptr<const Snapshot>> kept;
  absl::Status broken;
  bool full = false;
  std::atomic<int> fetches{0};
  std::function<void()> on_fetch;  // from the thread that fetches

 private:
  mutable std::mutex mu_;
};

}  // namespace statehouse::testing
