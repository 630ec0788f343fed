// Byte-level byte-pair encoding, as GPT-2, StarCoder2 and Qwen use it. Thread-safety: immutable.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/tokenizer/bpe_definition.h"
#include "models/tokenizer/bpe_merge.h"
#include "models/tokenizer/token_table.h"
#include "models/tokenizer/tokenizer.h"
#include "models/tokenizer/tokenizer_settings.h"

namespace statehouse {

class BpeTokenizer final : public Tokenizer {
 public:
  // INVALID_ARGUMENT names file and field of what does not fit together.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(BpeDefinition definition, const TokenizerSettings& settings);

  // Bytes that are not UTF-8 are words of their own, so that Encode takes any text and loses nothing.
  absl::Status Encode(std::string_view text, const EncodeOptions& options, std::vector<int32_t>* ids) const override;
  std::optional<int32_t> FindSpecial(std::string_view name) const override { return added_tokens_.Find(name); }
  std::optional<int32_t> bos_id() const override { return bos_id_; }
  std::optional<int32_t> eos_id() const override { return eos_id_; }
  std::string_view kind() const override { return "byte-level BPE"; }
  uint64_t fingerprint() const override { return fingerprint_; }

  int32_t size() const override { return table_.size(); }
  std::string_view TokenBytes(int32_t id) const override { return table_.Bytes(id); }
  bool IsSpecial(int32_t id) const override { return table_.IsSpecial(id); }
  std::string_view TokenName(int32_t id) const override { return table_.Name(id); }

 private:
  static constexpr int32_t kNoToken = -1;
  struct Scratch;

  BpeTokenizer() = default;
  absl::Status AddVocabulary(const BpeDefinition& definition);
  absl::Status AddAddedTokens(BpeDefinition* definition, const TokenizerSettings& settings);
  absl::Status AddMerges(const BpeDefinition& definition);
  absl::Status AddBytes(const BpeDefinition& definition);
  absl::Status CheckAround(const BpeDefinition& definition) const;
  void IndexWholeWords();
  uint64_t ComputeFingerprint(const BpeDefinition& definition) const;

  absl::Status EncodeInner(std::string_view text, bool with_special, std::vector<int32_t>* ids) const;
  absl::Status EncodePlain(std::string_view text, Scratch* scratch, std::vector<int32_t>* ids) const;
  absl::Status EncodeWord(std::string_view word, Scratch* scratch, std::vector<int32_t>* ids) const;

  TokenTable table_;
  MergeTable merges_;
  AddedTokens added_tokens_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  std::array<int32_t, 256> byte_ids_ = {};  // kNoToken where the vocabulary has none
  int32_t unk_id_ = kNoToken;               // what such a byte becomes
  bool fuse_unk_ = false;
  bool ignore_merges_ = false;
  std::unordered_map<std::string_view, int32_t> whole_words_;  // ignore_merges only; keys point into table_
  std::vector<int32_t> prefix_ids_;
  std::vector<int32_t> suffix_ids_;
  std::optional<int32_t> bos_id_;
  std::optional<int32_t> eos_id_;
  uint64_t fingerprint_ = 0;
};

}  // namespace statehouse
