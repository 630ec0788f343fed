#include "server/call_table.h"

namespace statehouse {

std::unique_ptr<CallTable::Ticket> CallTable::Enter(const std::string& principal, const std::string& id) {
  std::unique_ptr<Ticket> ticket(new Ticket(this));
  std::lock_guard<std::mutex> lock(mu_);
  ticket->place_ = tickets_.emplace(std::pair(principal, id), ticket.get());
  return ticket;
}

bool CallTable::Cancel(const std::string& principal, const std::string& id) {
  std::lock_guard<std::mutex> lock(mu_);
  const auto [begin, end] = tickets_.equal_range({principal, id});
  for (auto it = begin; it != end; ++it) it->second->cancelled_ = true;
  return begin != end;
}

bool CallTable::Ticket::cancelled() const {
  std::lock_guard<std::mutex> lock(table_->mu_);
  return cancelled_;
}

bool CallTable::Ticket::Leave() {
  std::lock_guard<std::mutex> lock(table_->mu_);
  if (!left_) table_->tickets_.erase(place_);
  left_ = true;
  return cancelled_;
}

}  // namespace statehouse
