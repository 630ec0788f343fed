// What the engine needs to know of a tokenizer: the bytes that each token stands for. No package behind it.
// Thread-safety: const methods may be called from any thread.
#pragma once

#include <cstdint>
#include <string_view>

namespace statehouse {

// Where the decoders of tokenizer libraries differ. The defaults are those of byte-level BPE.
struct DecodeRules {
  // Bytes that cannot become a character turn into U+FFFD: one per maximal invalid part (Unicode 15, §3.9,
  // "substitution of maximal subparts"), or one per byte.
  enum class Invalid { kPerPart, kPerByte };
  // At the start of a text FirstTokenBytes() stands for TokenBytes(): until it has left a space out or there is text,
  // or for every token until there is text.
  enum class Start { kFirstSpace, kUntilText };

  Invalid invalid = Invalid::kPerPart;
  Start start = Start::kFirstSpace;
  // A special token between two bytes of a character, shown or not, makes both invalid.
  bool special_ends_character = false;
};

class Vocabulary {
 public:
  virtual ~Vocabulary() = default;

  // Number of ids the tokenizer knows; ids are [0, size()). The model's vocabulary may be larger (padding rows).
  virtual int32_t size() const = 0;
  // The bytes that `id` adds to the text: may be part of a character; empty for control tokens and ids out of range.
  // Valid as long as the vocabulary lives.
  virtual std::string_view TokenBytes(int32_t id) const = 0;
  // The same at the start of a text: a suffix of TokenBytes(id). SentencePiece models with a dummy prefix leave its
  // space out.
  virtual std::string_view FirstTokenBytes(int32_t id) const { return TokenBytes(id); }
  // Control and special tokens (BOS, role markers, …): they end or frame text and are not shown unless asked for.
  virtual bool IsSpecial(int32_t id) const = 0;
  // The token's own spelling, shown where a special token is asked for ("<|end|>").
  virtual std::string_view TokenName(int32_t id) const = 0;
  virtual DecodeRules decode_rules() const { return {}; }
};

}  // namespace statehouse
