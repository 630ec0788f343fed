// A 64-bit hash over a sequence of texts and byte blocks, equal on every host (XXH3): what identities are made of.
// Each part is framed by its length, so that parts cannot run into one another. Thread-safety: one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

namespace statehouse {

class ContentHash {
 public:
  ContentHash();
  ~ContentHash();
  void AddBytes(const void* data, int64_t size);
  void AddText(std::string_view text) { AddBytes(text.data(), static_cast<int64_t>(text.size())); }
  void AddNumber(uint64_t value) { AddBytes(&value, sizeof(value)); }
  uint64_t Digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace statehouse
