// What the files of a byte-level BPE tokenizer say, before it is checked as a whole. Thread-safety: plain data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "models/tokenizer/added_tokens.h"
#include "models/tokenizer/normalizer.h"
#include "models/tokenizer/pre_tokenizer.h"
#include "models/tokenizer/tokenizer_settings.h"

namespace statehouse {

struct BpeDefinition {
  std::string vocab_where;   // file and field, for messages
  std::string merges_where;  // the same
  absl::flat_hash_map<std::string, int32_t> vocab;
  std::vector<std::pair<std::string, std::string>> merges;  // in order of rank
  std::vector<AddedToken> added_tokens;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::optional<std::string> unk_token;  // what a byte without a token becomes
  bool fuse_unk = false;                 // one for a run of such bytes
  bool ignore_merges = false;            // a word that is a token stays whole
  std::vector<int32_t> prefix_ids;       // around a text with add_special_tokens
  std::vector<int32_t> suffix_ids;
};

// Errors as in Tokenizer::Load.
absl::StatusOr<BpeDefinition> ReadTokenizerJson(const std::filesystem::path& file);
absl::StatusOr<BpeDefinition> ReadVocabAndMerges(const std::filesystem::path& dir, const TokenizerSettings& settings);

}  // namespace statehouse
