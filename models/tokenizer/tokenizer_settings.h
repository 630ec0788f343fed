// What the small files beside a tokenizer say: tokenizer_config.json, special_tokens_map.json, added_tokens.json, and
// the model type of config.json. Thread-safety: plain data.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/tokenizer/added_tokens.h"

namespace statehouse {

struct TokenizerSettings {
  std::string tokenizer_class;           // "" where no file names one
  std::string model_type;                // the same
  std::string chat_template;             // Jinja, of tokenizer_config.json
  std::string statehouse_chat_template;  // one of ChatTemplate::Names()
  std::optional<std::string> bos_token;  // spellings; tokenizer_config.json wins over special_tokens_map.json
  std::optional<std::string> eos_token;
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  std::optional<bool> add_prefix_space;
  std::vector<std::string> special_tokens;  // spellings of all tokens that some file calls special
  std::vector<AddedToken> added_tokens;     // with the ids that added_tokens_decoder and added_tokens.json give
};

// Files that are not there say nothing. INVALID_ARGUMENT names file and field.
absl::StatusOr<TokenizerSettings> ReadTokenizerSettings(const std::filesystem::path& checkpoint_dir);

// An added token as tokenizer.json and added_tokens_decoder write it: a string "content" and flags; no id.
absl::StatusOr<AddedToken> ReadAddedToken(const nlohmann::json& node, const std::string& where);
// A token id: an integer from 0 to TokenTable::kLargestId.
absl::StatusOr<int32_t> ReadTokenId(const nlohmann::json& node, const std::string& where);

}  // namespace statehouse
