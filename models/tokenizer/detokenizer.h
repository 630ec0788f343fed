// Turns a stream of token ids into text, never half a character.
//
// Bytes that may still become a character are held back; bytes that cannot become one turn into U+FFFD, one per maximal
// invalid part (Unicode 15, §3.9, "substitution of maximal subparts"). The concatenation of all output equals the decoding
// of the whole. Thread-safety: one thread at a time. Append() does not allocate while `out` has capacity.
#pragma once

#include <cstdint>
#include <string>

#include "models/tokenizer/vocabulary.h"

namespace statehouse {

class Detokenizer {
 public:
  // `vocabulary` must outlive this object.
  explicit Detokenizer(const Vocabulary* vocabulary, bool show_special = false)
      : vocabulary_(vocabulary), show_special_(show_special) {}

  // Appends to `out` the characters that `id` completes.
  void Append(int32_t id, std::string* out);
  // The text ends here: held-back bytes become U+FFFD.
  void Flush(std::string* out);
  // Forgets everything: the next Append() starts a new text.
  void Reset();

 private:
  void AppendBytes(const char* bytes, int64_t size, std::string* out);

  const Vocabulary* vocabulary_;
  bool show_special_;
  bool at_start_ = true;
  char pending_[4] = {};
  int num_pending_ = 0;
};

}  // namespace statehouse
