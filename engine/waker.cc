#include "engine/waker.h"

#include <chrono>

namespace statehouse {

void Waker::Wake() {
  std::lock_guard<std::mutex> lock(mu_);
  if (signaled_) return;
  signaled_ = true;
  woken_.notify_one();
}

void Waker::WakeForCancel() {
  cancels_.fetch_add(1, std::memory_order_release);
  Wake();
}

void Waker::Wait(absl::Duration timeout) {
  std::unique_lock<std::mutex> lock(mu_);
  // An hour bounds the conversion of an infinite duration; the caller simply looks again.
  const auto bounded = absl::ToChronoNanoseconds(std::min(timeout, absl::Hours(1)));
  woken_.wait_for(lock, bounded, [this] { return signaled_; });
  signaled_ = false;
}

}  // namespace statehouse
