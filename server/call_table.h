// The generation calls that the server has and the engine has not yet: those that wait to be tokenised, or are. With it
// Cancel reaches a request from the moment its id is known. Thread-safety: any thread.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace statehouse {

class CallTable {
 public:
  class Ticket;

 private:
  using Tickets = std::multimap<std::pair<std::string, std::string>, Ticket*>;  // by principal and id

 public:
  // One call's place; leaves with the object.
  class Ticket {
   public:
    ~Ticket() { Leave(); }
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;
    bool cancelled() const;
    // From now on Cancel() does not find it. Returns whether it was cancelled before.
    bool Leave();

   private:
    friend class CallTable;
    explicit Ticket(CallTable* table) : table_(table) {}
    CallTable* const table_;
    bool cancelled_ = false;  // guarded by the table's mu_, as all below
    bool left_ = false;
    Tickets::iterator place_;
  };

  // The table must outlive the ticket. Two calls may come with one id: the engine will refuse the second.
  std::unique_ptr<Ticket> Enter(const std::string& principal, const std::string& id);
  // Marks the calls of that name; false if there is none.
  bool Cancel(const std::string& principal, const std::string& id);

 private:
  mutable std::mutex mu_;
  Tickets tickets_;  // guarded by mu_
};

}  // namespace statehouse
