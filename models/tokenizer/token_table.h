// The tokens of a vocabulary by id: spelling, bytes and kind. Thread-safety: immutable once filled.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer/fingerprint.h"

namespace statehouse {

class TokenTable {
 public:
  // Ids above this are refused wherever a file names one: a short file must not claim gigabytes.
  static constexpr int64_t kLargestId = (1 << 22) - 1;

  struct Token {
    std::string_view name;   // the spelling in the vocabulary
    std::string_view bytes;  // what it adds to a text; ignored for special tokens
    bool special = false;
    bool drops_first = false;  // at the start of a text the first byte is left out
  };

  // REQUIRES: 0 <= id <= kLargestId, and `id` was not set before, or its name and bytes are the same.
  void Set(int32_t id, const Token& token);
  // REQUIRES: Has(id).
  void MarkSpecial(int32_t id);

  int32_t size() const { return static_cast<int32_t>(entries_.size()); }
  bool Has(int64_t id) const { return id >= 0 && id < size() && entries_[static_cast<size_t>(id)].present; }
  bool IsSpecial(int32_t id) const { return Has(id) && entries_[static_cast<size_t>(id)].special; }
  std::string_view Name(int32_t id) const;
  // Empty for special tokens.
  std::string_view Bytes(int32_t id) const;
  std::string_view FirstBytes(int32_t id) const;
  void AddTo(Fingerprint* fingerprint) const;

 private:
  struct Entry {
    uint32_t name_offset = 0;
    uint32_t name_size = 0;
    uint32_t bytes_offset = 0;
    uint32_t bytes_size = 0;
    bool present = false;
    bool special = false;
    bool drops_first = false;
  };
  std::string_view View(uint32_t offset, uint32_t size) const { return std::string_view(text_).substr(offset, size); }

  std::vector<Entry> entries_;
  std::string text_;  // names and bytes, end to end; files are bounded far below 4 GiB
};

}  // namespace statehouse
