#include "engine/state/host_pool.h"

#include <iterator>
#include <utility>

namespace statehouse {

void HostPool::Add(const std::string& key, Item item, bool held, Freed* freed) {
  Remove(key, freed);
  Place place{.item = std::move(item), .bytes = 0, .held = held, .turn = {}};
  place.bytes = place.item.snapshot->bytes();
  bytes_ += place.bytes;
  if (!held) place.turn = order_.insert(order_.end(), key);
  places_.emplace(key, std::move(place));
  Trim(freed);
}

void HostPool::LetGo(const std::string& key, Freed* freed) {
  const auto found = places_.find(key);
  if (found == places_.end() || !found->second.held) return;
  found->second.held = false;
  found->second.turn = order_.insert(order_.end(), key);
  Trim(freed);
}

const HostPool::Item* HostPool::Use(const std::string& key) {
  const auto found = places_.find(key);
  if (found == places_.end()) return nullptr;
  if (!found->second.held) order_.splice(order_.end(), order_, found->second.turn);
  return &found->second.item;
}

const HostPool::Item* HostPool::Find(const std::string& key) const {
  const auto found = places_.find(key);
  return found == places_.end() ? nullptr : &found->second.item;
}

int64_t HostPool::Remove(const std::string& key, Freed* freed) {
  const auto found = places_.find(key);
  return found == places_.end() ? -1 : Erase(found, freed);
}

int64_t HostPool::Erase(Places::iterator place, Freed* freed) {
  const int64_t bytes = place->second.bytes;
  bytes_ -= bytes;
  if (!place->second.held) order_.erase(place->second.turn);
  freed->push_back(std::move(place->second.item.snapshot));
  places_.erase(place);
  return bytes;
}

void HostPool::Trim(Freed* freed) {
  while (bytes_ > budget_bytes_ && !order_.empty()) Erase(places_.find(order_.front()), freed);
}

}  // namespace statehouse
