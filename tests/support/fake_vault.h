// A SnapshotVault of one tier, "disk", that does what a test says. Thread-safety: one thread.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/state/snapshot_vault.h"

namespace statehouse::testing {

class FakeVault final : public SnapshotVault {
 public:
  absl::Status Keep(const std::string& key, std::shared_ptr<const Snapshot> snapshot, bool) override {
    if (full) return absl::ResourceExhaustedError("full");
    kept[key] = std::move(snapshot);
    return absl::OkStatus();
  }
  absl::Status Flush(const std::string&, bool, absl::Time) override { return absl::OkStatus(); }
  bool CanFlush(bool) const override { return true; }
  absl::StatusOr<Fetched> Fetch(const std::string& key, bool) override {
    ++fetches;
    if (!broken.ok()) return broken;
    const auto found = kept.find(key);
    if (found == kept.end()) return absl::NotFoundError("no such snapshot");
    Fetched fetched;
    fetched.snapshot = found->second;
    fetched.tier = Tier::kDisk;
    return fetched;
  }
  Tier Where(const std::string& key) const override { return kept.contains(key) ? Tier::kDisk : Tier::kNone; }
  absl::Status Drop(const std::string& key, Removed*) override {
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
  int fetches = 0;
};

}  // namespace statehouse::testing
