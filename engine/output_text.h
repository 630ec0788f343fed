// The text of one output as far as the engine must know it: how many bytes are final, and whether a stop string came
// up. Thread-safety: the engine thread. Allocates nothing while `scratch` has room for the text of one token.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "engine/stop_matcher.h"
#include "models/tokenizer/detokenizer.h"
#include "models/tokenizer/vocabulary.h"

namespace statehouse {

class OutputText {
 public:
  // `vocabulary` may be null: then there is no text. Both must outlive this object.
  OutputText(const Vocabulary* vocabulary, bool show_special, const StopPatterns* patterns) : matcher_(patterns) {
    if (vocabulary != nullptr) detokenizer_.emplace(vocabulary, show_special);
  }

  // Takes the next token; returns the stop string that it completes, if any.
  std::optional<StopMatcher::Match> Append(int32_t id, bool may_match, std::string* scratch) {
    if (!detokenizer_.has_value()) return std::nullopt;
    scratch->clear();
    detokenizer_->Append(id, scratch);
    return matcher_.Feed(*scratch, may_match);
  }
  // The text ends without a match: returns its length. Stop strings are not searched in what the end itself adds
  // (U+FFFD for an unfinished character).
  int64_t Finish(std::string* scratch) {
    if (!detokenizer_.has_value()) return 0;
    scratch->clear();
    detokenizer_->Flush(scratch);
    return matcher_.total() + static_cast<int64_t>(scratch->size());
  }
  int64_t final_bytes() const { return matcher_.total() - matcher_.held(); }

 private:
  std::optional<Detokenizer> detokenizer_;
  StopMatcher matcher_;
};

}  // namespace statehouse
