#include "models/tokenizer/fim.h"

#include <array>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"

namespace statehouse {
namespace {

constexpr EncodeOptions kPlain = {.add_special_tokens = false, .parse_special_tokens = false};

absl::Status EncodeField(const char* field, std::string_view text, const Tokenizer& tokenizer,
                         std::vector<int32_t>* ids) {
  absl::Status status = tokenizer.Encode(text, kPlain, ids);
  return status.ok() ? status : absl::Status(status.code(), absl::StrCat(field, ": ", std::string(status.message())));
}

}  // namespace

absl::StatusOr<FillInTheMiddle> FillInTheMiddle::For(const Tokenizer& tokenizer) {
  constexpr std::array<std::array<std::string_view, 3>, 2> kSpellings = {
      {{"<fim_prefix>", "<fim_suffix>", "<fim_middle>"}, {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"}}};
  std::string missing;
  for (const auto& names : kSpellings) {
    const std::array<std::optional<int32_t>, 3> ids = {tokenizer.FindSpecial(names[0]), tokenizer.FindSpecial(names[1]),
                                                       tokenizer.FindSpecial(names[2])};
    if (ids[0].has_value() && ids[1].has_value() && ids[2].has_value()) {
      FillInTheMiddle fim;
      fim.prefix_id_ = *ids[0];
      fim.suffix_id_ = *ids[1];
      fim.middle_id_ = *ids[2];
      return fim;
    }
    const bool has_none = !ids[0].has_value() && !ids[1].has_value() && !ids[2].has_value();
    if (has_none && !missing.empty()) continue;  // the other spelling is then the one to name
    missing.clear();
    for (size_t i = 0; i < ids.size(); ++i) {
      if (!ids[i].has_value()) absl::StrAppend(&missing, missing.empty() ? "" : ", ", std::string(names[i]));
    }
  }
  return absl::FailedPreconditionError(
      absl::StrCat("suffix: fill-in-the-middle needs special tokens that the tokenizer does not have: ", missing));
}

absl::Status FillInTheMiddle::Render(std::string_view prefix, std::string_view suffix, const Tokenizer& tokenizer,
                                     std::vector<int32_t>* ids) const {
  std::vector<int32_t> prefix_ids;
  if (absl::Status status = EncodeField("prompt", prefix, tokenizer, &prefix_ids); !status.ok()) return status;
  return Render(prefix_ids, suffix, tokenizer, ids);
}

absl::Status FillInTheMiddle::Render(const std::vector<int32_t>& prefix_ids, std::string_view suffix,
                                     const Tokenizer& tokenizer, std::vector<int32_t>* ids) const {
  std::vector<int32_t> suffix_ids;
  if (absl::Status status = EncodeField("suffix", suffix, tokenizer, &suffix_ids); !status.ok()) return status;
  ids->push_back(prefix_id_);
  ids->insert(ids->end(), prefix_ids.begin(), prefix_ids.end());
  ids->push_back(suffix_id_);
  ids->insert(ids->end(), suffix_ids.begin(), suffix_ids.end());
  ids->push_back(middle_id_);
  return absl::OkStatus();
}

}  // namespace statehouse
