// A BlobStore in memory that can be slow, hang, be dead, be full, and corrupt what it holds. Thread-safety: any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/state/blob_store.h"

namespace statehouse::testing {

class FaultyBlobs final : public BlobStore {
 private:
  template <typename Fn>
  auto Locked(Fn fn) const {
    const std::lock_guard lock(mutex_);
    return fn();
  }

 public:
  explicit FaultyBlobs(std::string name) : name_(std::move(name)) {}

  // --- faults ---
  void SetDead(bool dead) {
    Set([&] { dead_ = dead; });
  }
  void SetHanging(bool hanging) {
    Set([&] { hanging_ = hanging; });
  }
  // What Get() says of values that are there.
  void SetReads(const absl::Status& status) {
    Set([&] { reads_ = status; });
  }
  // What Remove() says of values that are there, and stay.
  void SetRemovals(const absl::Status& status) {
    Set([&] { removals_ = status; });
  }
  void SetDelay(absl::Duration delay) {
    Set([&] { delay_ = delay; });
  }
  void SetRoom(int64_t bytes) {
    Set([&] { room_ = bytes; });
  }
  void FlipABit(const std::string& key_end) {
    Set([&] {
      for (auto& [key, value] : values_) {
        if (key.ends_with(key_end)) value[value.size() / 2] ^= std::byte{4};
      }
    });
  }

  // --- what happened ---
  int64_t num_calls() const {
    return Locked([this] { return num_calls_; });
  }
  int64_t num_values() const {
    return Locked([this] { return static_cast<int64_t>(values_.size()); });
  }
  int64_t num_quarantined() const {
    return Locked([this] { return static_cast<int64_t>(quarantine_.size()); });
  }
  bool Holds(const std::string& key_end) const {
    return Locked([&] {
      for (const auto& [key, value] : values_) {
        if (key.ends_with(key_end)) return true;
      }
      return false;
    });
  }

  // --- BlobStore ---
  const std::string& name() const override { return name_; }
  absl::Status Put(const std::string& key, const std::function<absl::Status(const ByteSink&)>& write) override {
    std::vector<std::byte> value;
    const absl::Status written = write([&value](std::span<const std::byte> bytes) {
      value.insert(value.end(), bytes.begin(), bytes.end());
      return absl::OkStatus();
    });
    if (!written.ok()) return written;
    std::unique_lock lock(mutex_);
    if (absl::Status status = Fault(&lock); !status.ok()) return status;
    int64_t used = static_cast<int64_t>(value.size());
    for (const auto& [other, held] : values_) used += static_cast<int64_t>(held.size());
    if (used > room_) return absl::ResourceExhaustedError("injected: full");
    values_[key] = std::move(value);
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<std::byte>> Get(const std::string& key) override {
    std::unique_lock lock(mutex_);
    if (absl::Status status = Fault(&lock); !status.ok()) return status;
    const auto found = values_.find(key);
    if (found == values_.end()) return absl::NotFoundError(key);
    if (!reads_.ok()) return reads_;
    return found->second;
  }
  absl::StatusOr<BlobInfo> Stat(const std::string& key) override {
    std::unique_lock lock(mutex_);
    if (absl::Status status = Fault(&lock); !status.ok()) return status;
    const auto found = values_.find(key);
    if (found == values_.end()) return absl::NotFoundError(key);
    return BlobInfo{key, static_cast<int64_t>(found->second.size()), absl::Now()};
  }
  absl::Status Remove(const std::string& key) override {
    std::unique_lock lock(mutex_);
    if (absl::Status status = Fault(&lock); !status.ok()) return status;
    if (values_.contains(key) && !removals_.ok()) return removals_;
    values_.erase(key);
    return absl::OkStatus();
  }
  absl::Status Quarantine(const std::string& key) override {
    std::unique_lock lock(mutex_);
    if (absl::Status status = Fault(&lock); !status.ok()) return status;
    if (values_.erase(key) > 0) quarantine_.insert(key);
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<BlobInfo>> List(const std::string& prefix, const std::string& after,
                                             int64_t limit) override {
    std::unique_lock lock(mutex_);
    if (absl::Status status = Fault(&lock); !status.ok()) return status;
    std::vector<BlobInfo> found;
    for (auto value = values_.upper_bound(after); value != values_.end(); ++value) {
      if (static_cast<int64_t>(found.size()) >= limit) break;
      if (!value->first.starts_with(prefix)) continue;
      found.push_back({value->first, static_cast<int64_t>(value->second.size()), absl::Now()});
    }
    return found;
  }

 private:
  template <typename Fn>
  void Set(Fn fn) {
    const std::lock_guard lock(mutex_);
    fn();
    changed_.notify_all();
  }
  absl::Status Fault(std::unique_lock<std::mutex>* lock) {
    ++num_calls_;
    if (delay_ > absl::ZeroDuration()) {
      const auto delay = absl::ToChronoMilliseconds(delay_);
      lock->unlock();
      std::this_thread::sleep_for(delay);
      lock->lock();
    }
    changed_.wait(*lock, [this] { return !hanging_; });
    return dead_ ? absl::UnavailableError("injected: dead") : absl::OkStatus();
  }

  const std::string name_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::vector<std::byte>> values_;
  std::set<std::string> quarantine_;
  bool dead_ = false;
  bool hanging_ = false;
  absl::Status reads_, removals_;
  absl::Duration delay_ = absl::ZeroDuration();
  int64_t room_ = int64_t{1} << 40;
  int64_t num_calls_ = 0;
};

}  // namespace statehouse::testing
