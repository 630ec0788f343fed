// Splits a text into the words inside which byte-pair encoding merges. Thread-safety: immutable.
#pragma once

#include <deque>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/tokenizer/fingerprint.h"
#include "models/tokenizer/regex.h"

namespace statehouse {

class PreTokenizer {
 public:
  // The words of one text, in order. They point into the text, or into `copies` where a space was put before.
  struct Words {
    std::vector<std::string_view> words;
    std::deque<std::string> copies;
  };

  // `node` is the field "pre_tokenizer" of a tokenizer.json: ByteLevel, or a Sequence of Digits and Split that ends
  // with ByteLevel. UNIMPLEMENTED names another type or option; INVALID_ARGUMENT names the field. `where` opens each
  // message.
  static absl::StatusOr<PreTokenizer> FromJson(const nlohmann::json& node, const std::string& where);

  // Adds the words of `text` to `words`. REQUIRES: `text` is well-formed UTF-8 and outlives them.
  absl::Status Split(std::string_view text, Words* words) const;
  void AddTo(Fingerprint* fingerprint) const { fingerprint->Add(description_); }

 private:
  enum class Kind { kPattern, kDigits, kPrefixSpace };
  enum class Behavior { kIsolated, kRemoved, kContiguous, kMergedWithPrevious, kMergedWithNext };
  struct Step {
    Kind kind = Kind::kPattern;
    Regex pattern = {};  // kPattern only
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;
  };
  struct Piece {
    TextRange range;
    bool is_match;
  };
  class Reader;

  static absl::Status FindPieces(const Step& step, std::string_view text, std::vector<Piece>* pieces);
  static void AddPieces(const Step& step, std::string_view text, const std::vector<Piece>& pieces,
                        std::vector<std::string_view>* words);

  std::vector<Step> steps_;
  std::string description_;  // the JSON it was made from
};

}  // namespace statehouse
