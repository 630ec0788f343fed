// What the engine needs to know of a tokenizer: the bytes that each token stands for. No package behind it.
// Thread-safety: const methods may be called from any thread.
#pragma once

#include <cstdint>
#include <string_view>

namespace statehouse {

class Vocabulary {
 public:
  virtual ~Vocabulary() = default;

  // Number of ids the tokenizer knows; ids are [0, size()). The model's vocabulary may be larger (padding rows).
  virtual int32_t size() const = 0;
  // The bytes that `id` adds to the text: may be part of a character; empty for control tokens and ids out of range.
  // Valid as long as the vocabulary lives.
  virtual std::string_view TokenBytes(int32_t id) const = 0;
  // Control and special tokens (BOS, role markers, …): they end or frame text and are not shown unless asked for.
  virtual bool IsSpecial(int32_t id) const = 0;
  // The token's own spelling, shown where a special token is asked for ("<|end|>").
  virtual std::string_view TokenName(int32_t id) const = 0;
  // SentencePiece models with a dummy prefix: the first space of a decoded text is not part of it.
  virtual bool StripsLeadingSpace() const = 0;
};

}  // namespace statehouse
