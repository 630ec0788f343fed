// The turns under way that have an idempotency key, so that a later call with the same key can take over: its caller
// has lost the first call's stream, which this server may not have noticed yet. Thread-safety: any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "engine/event_stream.h"

namespace statehouse {

class TurnTable {
 public:
  class Ticket;

 private:
  using Name = std::pair<std::string, std::string>;  // session id and key

 public:
  // One turn's place; leaves with the object.
  class Ticket {
   public:
    ~Ticket();
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;
    // What to cancel when another call takes over; at once, if one has already.
    void SetStream(const std::shared_ptr<EventStream>& stream);
    bool superseded() const;

   private:
    friend class TurnTable;
    Ticket(TurnTable* table, Name name) : table_(table), name_(std::move(name)) {}
    TurnTable* const table_;
    const Name name_;
    uint64_t number_ = 0;  // no two of a table have the same; guarded by its mu_, as all below
    std::shared_ptr<EventStream> stream_;
    bool superseded_ = false;
  };

  // The table must outlive the ticket. A turn with the same key that has not left yet (its outcome is committed, or it
  // lost its lease) gives its place up: only the new one can be superseded then.
  std::unique_ptr<Ticket> Enter(const std::string& session_id, const std::string& key);
  // Cancels the turn of that key and waits until it is over. False: there is none here, or `until` passed first.
  bool Supersede(const std::string& session_id, const std::string& key, absl::Time until);

 private:
  mutable std::mutex mu_;
  std::condition_variable left_;
  std::map<Name, Ticket*> tickets_;  // guarded by mu_, as below
  uint64_t last_number_ = 0;
};

}  // namespace statehouse
