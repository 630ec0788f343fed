// Fill-in-the-middle: a prompt that asks for what belongs between two texts, for tokenizers that have the tokens for
// it. Thread-safety: immutable.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/tokenizer/tokenizer.h"

namespace statehouse {

class FillInTheMiddle {
 public:
  // Looks for <fim_prefix>, <fim_suffix> and <fim_middle> (StarCoder2), then <|fim_prefix|> and so on (Qwen).
  // FAILED_PRECONDITION names what is missing.
  static absl::StatusOr<FillInTheMiddle> For(const Tokenizer& tokenizer);

  // Appends PREFIX-token prefix SUFFIX-token suffix MIDDLE-token, the order these models were trained with; the next
  // token is the first of the middle. The texts are plain: special tokens in them are not read. INVALID_ARGUMENT names
  // the field.
  absl::Status Render(std::string_view prefix, std::string_view suffix, const Tokenizer& tokenizer,
                      std::vector<int32_t>* ids) const;
  // The same for a prefix that is given as token ids.
  absl::Status Render(const std::vector<int32_t>& prefix_ids, std::string_view suffix, const Tokenizer& tokenizer,
                      std::vector<int32_t>* ids) const;

 private:
  int32_t prefix_id_ = 0;
  int32_t suffix_id_ = 0;
  int32_t middle_id_ = 0;
};

}  // namespace statehouse
