#include "server/signals.h"

#include <unistd.h>

#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <utility>

namespace statehouse {

struct Signals::Shared {
  mutable std::mutex mu;
  std::condition_variable stopped;
  int stop_signal = 0;          // guarded by mu
  bool stop_requested = false;  // guarded by mu
  bool exit_on_stop = false;    // guarded by mu
  bool ending = false;          // guarded by mu
};

Signals::Signals(std::function<void()> on_hangup)
    : on_hangup_(std::move(on_hangup)), shared_(std::make_unique<Shared>()) {
  sigemptyset(&watched_);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR2}) sigaddset(&watched_, signal);
  pthread_sigmask(SIG_BLOCK, &watched_, &before_);
  thread_ = std::thread([this] { Run(); });
}

Signals::~Signals() {
  {
    std::lock_guard<std::mutex> lock(shared_->mu);
    shared_->ending = true;
  }
  pthread_kill(thread_.native_handle(), SIGUSR2);  // wakes sigwait
  thread_.join();
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

void Signals::Run() {
  while (true) {
    int signal = 0;
    if (sigwait(&watched_, &signal) != 0) continue;
    if (signal == SIGHUP) {
      on_hangup_();
      continue;
    }
    std::lock_guard<std::mutex> lock(shared_->mu);
    if (signal == SIGUSR2) {
      if (shared_->ending) return;
      continue;
    }
    if (shared_->exit_on_stop) _exit(0);
    if (shared_->stop_signal != 0) _exit(128 + signal);
    shared_->stop_signal = signal;
    shared_->stopped.notify_all();
  }
}

void Signals::ExitOnStop(bool on) {
  std::lock_guard<std::mutex> lock(shared_->mu);
  shared_->exit_on_stop = on;
}

int Signals::WaitForStop() {
  std::unique_lock<std::mutex> lock(shared_->mu);
  shared_->stopped.wait(lock, [this] { return shared_->stop_signal != 0 || shared_->stop_requested; });
  return shared_->stop_signal;
}

void Signals::RequestStop() {
  std::lock_guard<std::mutex> lock(shared_->mu);
  shared_->stop_requested = true;
  shared_->stopped.notify_all();
}

bool Signals::stopping() const {
  std::lock_guard<std::mutex> lock(shared_->mu);
  return shared_->stop_signal != 0;
}

}  // namespace statehouse
