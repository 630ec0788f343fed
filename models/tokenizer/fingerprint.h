// A stable 64-bit hash (XXH3) over a list of values. Thread-safety: plain data.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace statehouse {

class Fingerprint {
 public:
  void Add(int64_t value) {
    for (int shift = 0; shift < 64; shift += 8) bytes_.push_back(static_cast<char>(value >> shift));
  }
  // Strings carry their length, so that ("ab", "c") and ("a", "bc") differ.
  void Add(std::string_view text) {
    Add(static_cast<int64_t>(text.size()));
    bytes_.append(text);
  }
  uint64_t Value() const;

 private:
  std::string bytes_;
};

}  // namespace statehouse
