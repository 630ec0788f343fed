// A vocabulary made in the test: token i stands for the i-th string. Thread-safety: immutable.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/tokenizer/vocabulary.h"

namespace statehouse::testing {

class FakeVocabulary final : public Vocabulary {
 public:
  explicit FakeVocabulary(std::vector<std::string> tokens, std::set<int32_t> special = {})
      : tokens_(std::move(tokens)), special_(std::move(special)) {}

  int32_t size() const override { return static_cast<int32_t>(tokens_.size()); }
  std::string_view TokenBytes(int32_t id) const override {
    if (id < 0 || id >= size() || IsSpecial(id)) return {};
    return tokens_[id];
  }
  bool IsSpecial(int32_t id) const override { return special_.contains(id); }
  std::string_view TokenName(int32_t id) const override {
    return id < 0 || id >= size() ? std::string_view() : tokens_[id];
  }

 private:
  const std::vector<std::string> tokens_;
  const std::set<int32_t> special_;
};

// One letter or two per token: a, b, …, z, aa, ab, …
inline FakeVocabulary LetterVocabulary(int32_t size) {
  std::vector<std::string> tokens;
  for (int32_t id = 0; id < size; ++id) {
    std::string token(1, static_cast<char>('a' + id % 26));
    if (id >= 26) token.insert(0, 1, static_cast<char>('a' + id / 26 - 1));
    tokens.push_back(token);
  }
  return FakeVocabulary(std::move(tokens));
}

}  // namespace statehouse::testing
