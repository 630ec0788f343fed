// Tokens that are found in a text as they are spelled, before it is split into words: "<|end|>", "<think>".
// Thread-safety: immutable once built.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "models/tokenizer/fingerprint.h"
#include "models/tokenizer/normalizer.h"

namespace statehouse {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool special = false;      // found only where the caller reads special tokens; not shown in decoded text
  bool single_word = false;  // only between characters that are not part of a word
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space behind it
  bool normalized = true;    // searched, in its normalized spelling, in the normalized text
};

class AddedTokens {
 public:
  // A stretch of a text: an added token, or what lies between.
  struct Piece {
    std::string_view text;
    std::optional<int32_t> id;
  };

  AddedTokens() = default;
  // REQUIRES: contents are not empty; ids differ.
  AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer);

  // Appends the pieces of `text`, in which the not normalized tokens are searched. At each place the longest token
  // wins.
  void SplitRaw(std::string_view text, bool with_special, std::vector<Piece>* pieces) const {
    Split(raw_, text, with_special, pieces);
  }
  // The same for the normalized tokens, in a piece of text that was normalized.
  void SplitNormalized(std::string_view text, bool with_special, std::vector<Piece>* pieces) const {
    Split(normalized_, text, with_special, pieces);
  }

  std::optional<int32_t> Find(std::string_view content) const;
  const std::vector<AddedToken>& tokens() const { return tokens_; }
  // What the token with index `i` is searched as.
  const std::string& spelling(size_t i) const { return spellings_[i]; }
  void AddTo(Fingerprint* fingerprint) const;

 private:
  // A tree over the bytes of the spellings.
  struct Tree {
    absl::flat_hash_map<uint64_t, uint32_t> children;  // node << 8 | byte -> node
    std::vector<int32_t> token_at;                     // by node: index into tokens_, or -1
    std::array<bool, 256> starts = {};                 // bytes that a spelling starts with
  };
  struct Match {
    size_t size;
    int32_t token;
  };

  static void Insert(Tree* tree, std::string_view spelling, int32_t token);
  std::optional<Match> LongestAt(const Tree& tree, std::string_view text) const;
  void Split(const Tree& tree, std::string_view text, bool with_special, std::vector<Piece>* pieces) const;

  std::vector<AddedToken> tokens_;
  std::vector<std::string> spellings_;
  std::map<std::string, int32_t, std::less<>> ids_;
  Tree raw_;
  Tree normalized_;
};

}  // namespace statehouse
