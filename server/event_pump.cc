#include "server/event_pump.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "kernels/parallel/thread_name.h"

namespace statehouse {

EventPump::EventPump()
    : thread_([this] {
        kernels::NameThisThread("events");
        Run();
      }) {}

EventPump::~EventPump() {
  {
    std::lock_guard<std::mutex> lock(mu_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
  std::unique_lock<std::mutex> lock(mu_);
  while (first_ != nullptr) {
    const std::shared_ptr<Client> client = PopLocked();
    lock.unlock();  // its destructor may take any lock
    lock.lock();
  }
}

void EventPump::Add(const std::shared_ptr<Client>& client) {
  std::lock_guard<std::mutex> lock(mu_);
  added_.push_back(client);
}

void EventPump::Remove(Client* client) {
  std::lock_guard<std::mutex> lock(mu_);
  std::erase_if(added_, [client](const std::weak_ptr<Client>& added) {
    const std::shared_ptr<Client> alive = added.lock();
    return alive == nullptr || alive.get() == client;
  });
}

void EventPump::Wake(Client* client) {
  {
    std::lock_guard<std::mutex> lock(mu_);
    if (client->queued_self_ != nullptr || stopping_) return;
    client->queued_self_ = client->weak_from_this().lock();
    if (client->queued_self_ == nullptr) return;  // its last owner is just letting go
    client->next_ = nullptr;
    (last_ == nullptr ? first_ : last_->next_) = client;
    last_ = client;
  }
  wake_.notify_one();
}

std::shared_ptr<EventPump::Client> EventPump::PopLocked() {
  Client* client = std::exchange(first_, first_->next_);
  if (first_ == nullptr) last_ = nullptr;
  return std::move(client->queued_self_);
}

void EventPump::Run() {
  constexpr auto kTick = std::chrono::seconds(1);
  auto next_tick = std::chrono::steady_clock::now() + kTick;
  std::unique_lock<std::mutex> lock(mu_);
  while (!stopping_) {
    if (first_ != nullptr) {
      std::shared_ptr<Client> client = PopLocked();
      lock.unlock();
      client->OnReady();
      client.reset();
      lock.lock();
    } else {
      wake_.wait_until(lock, next_tick, [this] { return stopping_ || first_ != nullptr; });
    }
    if (std::chrono::steady_clock::now() >= next_tick) {
      lock.unlock();
      Tick();
      lock.lock();
      next_tick = std::chrono::steady_clock::now() + kTick;
    }
  }
}

void EventPump::Tick() {
  std::vector<std::shared_ptr<Client>> clients;
  {
    std::lock_guard<std::mutex> lock(mu_);
    for (const auto& added : added_) {
      if (auto client = added.lock()) clients.push_back(std::move(client));
    }
  }
  for (const auto& client : clients) client->OnTick();
}

}  // namespace statehouse
