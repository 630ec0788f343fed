// Snapshots in host memory, least recently used first to go. Those that exist nowhere else yet are *held*: they stay,
// also beyond the budget. Thread-safety: owned by one thread, or guarded by its owner.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/state/fingerprint.h"
#include "engine/state/snapshot.h"

namespace statehouse {

class HostPool {
 public:
  struct Item {
    std::shared_ptr<const Snapshot> snapshot;
    Exactness exactness = Exactness::kExact;
    std::string numeric_difference;
  };
  // What left the pool. To be dropped by whoever gets it, outside its locks: freeing large memory takes a while.
  using Freed = std::vector<std::shared_ptr<const Snapshot>>;

  explicit HostPool(int64_t budget_bytes) : budget_bytes_(budget_bytes) {}

  // Replaces one of the same key.
  void Add(const std::string& key, Item item, bool held, Freed* freed);
  // It exists elsewhere now, or need not. Nothing happens if it is not there.
  void LetGo(const std::string& key, Freed* freed);
  // Null if it is not there. Use() also makes it the most recently used.
  const Item* Use(const std::string& key);
  const Item* Find(const std::string& key) const;
  // Its bytes; -1 if it is not there.
  int64_t Remove(const std::string& key, Freed* freed);

  int64_t bytes() const { return bytes_; }
  int64_t size() const { return static_cast<int64_t>(places_.size()); }

 private:
  struct Place {
    Item item;
    int64_t bytes = 0;
    bool held = false;
    std::list<std::string>::iterator turn;  // in order_; only if it is not held
  };
  using Places = std::unordered_map<std::string, Place>;

  int64_t Erase(Places::iterator place, Freed* freed);
  void Trim(Freed* freed);

  const int64_t budget_bytes_;
  int64_t bytes_ = 0;
  Places places_;
  std::list<std::string> order_;  // those that may leave, next one first
};

}  // namespace statehouse
