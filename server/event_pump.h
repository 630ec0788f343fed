// One thread that carries news from the engine to the calls, so that the engine thread never builds or sends a message.
//
// The engine thread wakes a call (no allocation, a lock held for a few instructions); the pump then runs its OnReady().
// Thread-safety: all methods from any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace statehouse {

class EventPump {
 public:
  // A call. Its owner keeps it in a shared_ptr; a client that is queued or running is kept alive by the pump as well.
  class Client : public std::enable_shared_from_this<Client> {
   public:
    virtual ~Client() = default;
    // On the pump thread, one at a time: events may be waiting.
    virtual void OnReady() = 0;
    // On the pump thread, about once a second while added.
    virtual void OnTick() {}

   private:
    friend class EventPump;
    std::shared_ptr<Client> queued_self_;  // guarded by the pump's mu_; set while in the ready list
    Client* next_ = nullptr;               // guarded by the pump's mu_
  };

  EventPump();
  ~EventPump();
  EventPump(const EventPump&) = delete;
  EventPump& operator=(const EventPump&) = delete;

  // Ticks from now on / no longer.
  void Add(const std::shared_ptr<Client>& client);
  void Remove(Client* client);
  // Queues OnReady(), once however often it is called before that runs. Does not allocate.
  void Wake(Client* client);

 private:
  void Run();
  std::shared_ptr<Client> PopLocked();
  void Tick();

  std::mutex mu_;
  std::condition_variable wake_;
  bool stopping_ = false;  // guarded by mu_, as all below
  Client* first_ = nullptr;
  Client* last_ = nullptr;
  std::vector<std::weak_ptr<Client>> added_;
  std::thread thread_;
};

}  // namespace statehouse
