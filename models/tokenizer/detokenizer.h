// Turns a stream of token ids into text, never half a character.
//
// Bytes that may still become a character are held back; bytes that cannot become one turn into U+FFFD as the
// vocabulary's DecodeRules say. The concatenation of all output equals the decoding of the whole, and is always valid
// UTF-8. Thread-safety: one thread at a time. Append() does not allocate while `out` has capacity.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "models/tokenizer/vocabulary.h"

namespace statehouse {

class Detokenizer {
 public:
  // `vocabulary` must outlive this object.
  explicit Detokenizer(const Vocabulary* vocabulary, bool show_special = false)
      : vocabulary_(vocabulary), rules_(vocabulary->decode_rules()), show_special_(show_special) {}

  // Appends to `out` the characters that `id` completes. Ids out of range add nothing.
  void Append(int32_t id, std::string* out);
  // The text ends here: held-back bytes become U+FFFD. Until Reset(), what follows is still the same text.
  void Flush(std::string* out);
  // Forgets everything: the next Append() starts a new text.
  void Reset();

 private:
  void AppendBytes(std::string_view bytes, std::string* out);
  void AppendByte(unsigned char byte, std::string* out);

  const Vocabulary* vocabulary_;
  DecodeRules rules_;
  bool show_special_;
  bool at_start_ = true;
  char pending_[4] = {};  // a prefix of a well-formed character
  int num_pending_ = 0;   // at most 3
};

}  // namespace statehouse
