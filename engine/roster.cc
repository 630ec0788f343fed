#include "engine/roster.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"

namespace statehouse {
namespace {

constexpr double kSmoothing = 0.1;  // weight of the newest interval
constexpr absl::Duration kDefaultRetry = absl::Seconds(1);
constexpr absl::Duration kShortestRetry = absl::Milliseconds(50);
constexpr absl::Duration kLongestRetry = absl::Seconds(60);

}  // namespace

Roster::~Roster() { Reap(); }

absl::Status Roster::Add(std::unique_ptr<Generation> generation) {
  const std::string& principal = generation->request->principal;
  std::lock_guard<std::mutex> lock(mu_);
  if (!unhealthy_.empty()) return absl::UnavailableError(unhealthy_);
  if (!accepting_) return absl::UnavailableError("the engine is draining and takes no more requests");
  if (by_id_.contains({principal, generation->request->id})) {
    return absl::AlreadyExistsError(absl::StrCat("request_id: ", generation->request->id,
                                                 " is in use by a request that has not ended; choose another"));
  }
  if (absl::Status status = CheckRoom(*generation); !status.ok()) return status;
  Generation* const added = generation.release();
  added->table_entry = by_id_.emplace(Generation::Table::key_type(principal, added->request->id), added).first;
  added->principal_entry = per_principal_.emplace(principal, 0).first;
  added->principal_entry->second += ShareOf(*added);
  added->arrival = ++arrivals_;
  Insert(added);
  return absl::OkStatus();
}

absl::Status Roster::CheckRoom(const Generation& generation) const {
  if (queued_requests_ >= limits_.max_queued_requests) {
    stats_->rejected_queue_full.fetch_add(1, std::memory_order_relaxed);
    return Overloaded(absl::StrCat("the queue is full: ", queued_requests_, " of ", limits_.max_queued_requests,
                                   " requests wait (--max-num-queued-reqs)"),
                      RetryAfter());
  }
  if (queued_tokens_ + generation.prompt_size() > limits_.max_queued_tokens) {
    stats_->rejected_queue_full.fetch_add(1, std::memory_order_relaxed);
    return Overloaded(
        absl::StrCat("the queue is full: ", queued_tokens_, " prompt tokens wait, this prompt adds ",
                     generation.prompt_size(), ", and ", limits_.max_queued_tokens, " may (--max-num-queued-tokens)"),
        RetryAfter());
  }
  const int64_t limit = limits_.max_requests_per_principal;
  if (limit > 0 && ShareOf(generation) > limit) {
    return InvalidField("n", absl::StrCat(generation.n()),
                        absl::StrCat("at most ", limit, " outputs (--max-requests-per-principal counts each)"));
  }
  const auto found = per_principal_.find(generation.request->principal);
  const int64_t held = found == per_principal_.end() ? 0 : found->second;
  if (limit > 0 && held + ShareOf(generation) > limit) {
    stats_->rejected_principal_limit.fetch_add(1, std::memory_order_relaxed);
    return Overloaded(
        absl::StrCat("this principal already has ", held, " outputs running or waiting, this request adds ",
                     ShareOf(generation), ", and ", limit, " may; wait for one to end"),
        RetryAfter());
  }
  return absl::OkStatus();
}

int64_t Roster::ShareOf(const Generation& generation) const {
  return std::min<int64_t>(generation.n(), limits_.num_slots);
}

absl::Duration Roster::RetryAfter() const {
  // Until as many places are free as would let the newcomer in: one.
  if (seconds_per_request_ <= 0) return kDefaultRetry;
  return std::clamp(absl::Seconds(seconds_per_request_), kShortestRetry, kLongestRetry);
}

bool Roster::Cancel(std::string_view id, std::string_view principal) {
  std::shared_ptr<EventStream> stream;
  {
    std::lock_guard<std::mutex> lock(mu_);
    const auto found = by_id_.find({std::string(principal), std::string(id)});
    if (found == by_id_.end()) return false;
    stream = found->second->stream;
  }
  stream->Cancel();
  return true;
}

void Roster::CancelAll() {
  std::lock_guard<std::mutex> lock(mu_);
  for (const auto& [key, generation] : by_id_) generation->stream->Cancel();
}

void Roster::StopAdmission() {
  std::lock_guard<std::mutex> lock(mu_);
  accepting_ = false;
}

void Roster::SetUnhealthy(std::string_view reason) {
  std::lock_guard<std::mutex> lock(mu_);
  unhealthy_ = reason;
}

bool Roster::WaitIdle(absl::Time until) {
  std::unique_lock<std::mutex> lock(mu_);
  const auto idle = [this] { return by_id_.empty(); };
  if (until == absl::InfiniteFuture()) {
    idle_.wait(lock, idle);
    return true;
  }
  return idle_.wait_until(lock, absl::ToChronoTime(until), idle);
}

Generation* Roster::Front() const {
  std::lock_guard<std::mutex> lock(mu_);
  return head_;
}

void Roster::Pop(Generation* front, absl::Time now) {
  std::lock_guard<std::mutex> lock(mu_);
  if (last_pop_ != absl::InfinitePast()) {
    const double interval = absl::ToDoubleSeconds(now - last_pop_);
    seconds_per_request_ += (interval - seconds_per_request_) * (seconds_per_request_ > 0 ? kSmoothing : 1.0);
  }
  Remove(front);
  // An empty queue ends the series: what comes next did not wait for its turn.
  last_pop_ = head_ != nullptr ? now : absl::InfinitePast();
}

Generation* Roster::PopEnded(absl::Time now, bool everything) {
  std::lock_guard<std::mutex> lock(mu_);
  absl::Time earliest = absl::InfiniteFuture();
  for (Generation* generation = head_; generation != nullptr; generation = generation->next) {
    if (everything || generation->stream->cancelled() || generation->request->deadline <= now) {
      Remove(generation);
      return generation;
    }
    earliest = std::min(earliest, generation->request->deadline);
  }
  earliest_deadline_ = earliest;
  return nullptr;
}

absl::Time Roster::earliest_deadline() const {
  std::lock_guard<std::mutex> lock(mu_);
  return earliest_deadline_;
}

void Roster::Unregister(Generation* generation) {
  std::lock_guard<std::mutex> lock(mu_);
  generation->table_node = by_id_.extract(generation->table_entry);
  generation->principal_entry->second -= ShareOf(*generation);
  if (generation->principal_entry->second == 0) {
    generation->principal_node = per_principal_.extract(generation->principal_entry);
  }
  if (by_id_.empty()) idle_.notify_all();
}

void Roster::Bury(Generation* generation) {
  std::lock_guard<std::mutex> lock(mu_);
  generation->next = graveyard_;
  graveyard_ = generation;
  buried_.notify_one();
}

void Roster::Reap() {
  Generation* dead = nullptr;
  {
    std::lock_guard<std::mutex> lock(mu_);
    std::swap(dead, graveyard_);
  }
  while (dead != nullptr) {
    Generation* const next = dead->next;
    delete dead;
    dead = next;
  }
}

bool Roster::WaitToReap() {
  std::unique_lock<std::mutex> lock(mu_);
  buried_.wait(lock, [this] { return graveyard_ != nullptr || stop_reaping_; });
  return !stop_reaping_;
}

void Roster::StopReaping() {
  std::lock_guard<std::mutex> lock(mu_);
  stop_reaping_ = true;
  buried_.notify_all();
}

Roster::Totals Roster::totals() const {
  std::lock_guard<std::mutex> lock(mu_);
  Totals totals;
  totals.queued_requests = queued_requests_;
  totals.queued_tokens = queued_tokens_;
  totals.running_requests = static_cast<int64_t>(by_id_.size()) - queued_requests_;
  totals.accepting = accepting_ && unhealthy_.empty();
  totals.healthy = unhealthy_.empty();
  return totals;
}

void Roster::Insert(Generation* generation) {
  Generation* after = tail_;
  while (after != nullptr && generation->order() < after->order()) after = after->previous;
  generation->previous = after;
  generation->next = after != nullptr ? after->next : head_;
  (after != nullptr ? after->next : head_) = generation;
  (generation->next != nullptr ? generation->next->previous : tail_) = generation;
  ++queued_requests_;
  queued_tokens_ += generation->prompt_size();
  earliest_deadline_ = std::min(earliest_deadline_, generation->request->deadline);
}

void Roster::Remove(Generation* generation) {
  (generation->previous != nullptr ? generation->previous->next : head_) = generation->next;
  (generation->next != nullptr ? generation->next->previous : tail_) = generation->previous;
  generation->previous = generation->next = nullptr;
  --queued_requests_;
  queued_tokens_ -= generation->prompt_size();
}

}  // namespace statehouse
