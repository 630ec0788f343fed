// The ids at which text begins and ends, from the several files of a checkpoint that name them (and disagree).
// Thread-safety: free functions.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/config.h"  // TokenIdSource
#include "models/config_reader.h"

namespace statehouse {

// Looks a spelling up in tokenizer.json (added tokens, then the vocabulary), added_tokens.json, tokenizer_config.json
// and vocab.json, without a tokenizer package. Files that are missing or malformed are passed over: the tokenizer
// reports them.
std::optional<int64_t> FindTokenIdInFiles(const std::filesystem::path& checkpoint_dir, std::string_view spelling);

// The spelling that special_tokens_map.json gives for `role` ("eos_token"), if it is there and says.
std::optional<std::string> SpecialTokenSpelling(const std::filesystem::path& checkpoint_dir, const char* role);

// Ids of `key` (one integer or a list of them; null or absent: none). Ids outside [0, vocab_size) are left out with a
// warning; anything but integers is an error of the reader.
std::vector<int32_t> ReadTokenIds(ConfigReader& reader, const char* key, int64_t vocab_size,
                                  std::vector<std::string>* warnings);

// The EOS id for a checkpoint whose configs name no usable one, from the places that TokenIdSource names. A warning
// says what was found, or that answers have no end of their own.
std::optional<int32_t> FallbackEos(const std::filesystem::path& checkpoint_dir, int64_t vocab_size,
                                   const TokenIdSource& source, std::vector<std::string>* warnings);

}  // namespace statehouse
