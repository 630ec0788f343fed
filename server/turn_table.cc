#include "server/turn_table.h"

namespace statehouse {

TurnTable::Ticket::~Ticket() {
  {
    std::lock_guard<std::mutex> lock(table_->mu_);
    // A later turn may have taken the place.
    const auto place = table_->tickets_.find(name_);
    if (place != table_->tickets_.end() && place->second == this) table_->tickets_.erase(place);
  }
  table_->left_.notify_all();
}

void TurnTable::Ticket::SetStream(const std::shared_ptr<EventStream>& stream) {
  bool cancel = false;
  {
    std::lock_guard<std::mutex> lock(table_->mu_);
    stream_ = stream;
    cancel = superseded_;
  }
  if (cancel) stream->Cancel();
}

bool TurnTable::Ticket::superseded() const {
  std::lock_guard<std::mutex> lock(table_->mu_);
  return superseded_;
}

std::unique_ptr<TurnTable::Ticket> TurnTable::Enter(const std::string& session_id, const std::string& key) {
  std::unique_ptr<Ticket> ticket(new Ticket(this, {session_id, key}));  // first: it takes the lock as it goes
  std::lock_guard<std::mutex> lock(mu_);
  ticket->number_ = ++last_number_;
  tickets_[ticket->name_] = ticket.get();
  return ticket;
}

bool TurnTable::Supersede(const std::string& session_id, const std::string& key, absl::Time until) {
  const std::pair<std::string, std::string> name(session_id, key);
  std::shared_ptr<EventStream> stream;
  std::unique_lock<std::mutex> lock(mu_);
  const auto found = tickets_.find(name);
  if (found == tickets_.end()) return false;
  // Not its address, which a ticket to come may have, too.
  const uint64_t number = found->second->number_;
  found->second->superseded_ = true;
  stream = found->second->stream_;
  lock.unlock();
  if (stream != nullptr) stream->Cancel();
  lock.lock();
  return left_.wait_until(lock, absl::ToChronoTime(until), [&] {
    const auto now = tickets_.find(name);
    return now == tickets_.end() || now->second->number_ != number;
  });
}

}  // namespace statehouse
