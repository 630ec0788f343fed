// A vocabulary given as a list of tokens, for tests.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "models/tokenizer/vocabulary.h"

namespace statehouse {

class FakeVocabulary : public Vocabulary {
 public:
  struct Token {
    std::string bytes;
    bool special = false;
    bool starts_with_prefix = false;  // FirstTokenBytes() leaves the first byte out
  };

  explicit FakeVocabulary(std::vector<Token> tokens, DecodeRules rules = {})
      : tokens_(std::move(tokens)), rules_(rules) {}

  int32_t size() const override { return static_cast<int32_t>(tokens_.size()); }
  std::string_view TokenBytes(int32_t id) const override {
    return !Has(id) || tokens_[id].special ? std::string_view() : tokens_[id].bytes;
  }
  std::string_view FirstTokenBytes(int32_t id) const override {
    const std::string_view bytes = TokenBytes(id);
    return Has(id) && tokens_[id].starts_with_prefix ? bytes.substr(1) : bytes;
  }
  bool IsSpecial(int32_t id) const override { return Has(id) && tokens_[id].special; }
  std::string_view TokenName(int32_t id) const override { return Has(id) ? std::string_view(tokens_[id].bytes) : ""; }
  DecodeRules decode_rules() const override { return rules_; }

 private:
  bool Has(int32_t id) const { return id >= 0 && id < size(); }

  std::vector<Token> tokens_;
  DecodeRules rules_;
};

}  // namespace statehouse
