// An engine that does what a test says: it records requests and hands out event streams that the test fills by hand.
// Thread-safety: any thread; each stream is filled by one.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace statehouse::testing {

class FakeEngine final : public Engine {
 public:
  struct Submitted {
    Request request;
    std::shared_ptr<EventStream> stream;
  };

  void Start() override {}
  bool RunStep() override { return false; }
  absl::StatusOr<std::shared_ptr<EventStream>> Submit(std::unique_ptr<Request> request) override {
    std::lock_guard<std::mutex> lock(mu_);
    if (!accepting_) return absl::UnavailableError("draining");
    if (!submit_error_.ok()) return submit_error_;
    auto stream = std::make_shared<EventStream>(request->id, request->n, 256);
    submitted_.push_back({std::move(*request), stream});
    changed_.notify_all();
    return stream;
  }
  bool Cancel(std::string_view id, std::string_view principal) override {
    std::lock_guard<std::mutex> lock(mu_);
    for (const Submitted& submitted : submitted_) {
      if (submitted.request.id != id || submitted.request.principal != principal) continue;
      submitted.stream->Cancel();
      return true;
    }
    return false;
  }
  void StopAdmission() override {
    std::lock_guard<std::mutex> lock(mu_);
    accepting_ = false;
  }
  bool WaitIdle(absl::Time until) override {
    std::unique_lock<std::mutex> lock(mu_);
    return changed_.wait_until(lock, absl::ToChronoTime(until), [this] { return idle_; });
  }
  void CancelAll() override {
    std::lock_guard<std::mutex> lock(mu_);
    for (const Submitted& submitted : submitted_) submitted.stream->Cancel();
  }
  EngineStatus GetStatus() const override {
    std::lock_guard<std::mutex> lock(mu_);
    EngineStatus status;
    status.slots_total = 4;
    status.slots_used = 1;
    status.slot_bytes = 1024;
    status.state_bytes = 4096;
    status.accepting = accepting_;
    status.healthy = healthy_;
    return status;
  }
  const EngineStats& stats() const override { return stats_; }
  const EngineOptions& options() const override { return options_; }

  // --- for tests ---
  EngineStats& mutable_stats() { return stats_; }
  void set_submit_error(absl::Status error) {
    std::lock_guard<std::mutex> lock(mu_);
    submit_error_ = std::move(error);
  }
  void set_idle(bool idle) {
    std::lock_guard<std::mutex> lock(mu_);
    idle_ = idle;
    changed_.notify_all();
  }
  void set_healthy(bool healthy) {
    std::lock_guard<std::mutex> lock(mu_);
    healthy_ = healthy;
  }
  // The `index`-th request, once it has come; an empty one after ten seconds.
  Submitted WaitFor(size_t index) {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait_for(lock, std::chrono::seconds(10), [&] { return submitted_.size() > index; });
    return submitted_.size() > index ? submitted_[index] : Submitted{};
  }
  size_t num_submitted() const {
    std::lock_guard<std::mutex> lock(mu_);
    return submitted_.size();
  }

 private:
  mutable std::mutex mu_;
  std::condition_variable changed_;
  std::vector<Submitted> submitted_;  // guarded by mu_, as all below
  absl::Status submit_error_;
  bool accepting_ = true;
  bool idle_ = true;
  bool healthy_ = true;
  EngineStats stats_;
  EngineOptions options_;
};

}  // namespace statehouse::testing
