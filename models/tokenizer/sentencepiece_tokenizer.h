// Tokenizer over a SentencePiece model. Thread-safety: immutable.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/tokenizer/added_tokens.h"
#include "models/tokenizer/sentencepiece_library.h"
#include "models/tokenizer/sentencepiece_model.h"
#include "models/tokenizer/token_table.h"
#include "models/tokenizer/tokenizer.h"
#include "models/tokenizer/tokenizer_settings.h"

namespace statehouse {

class SentencePieceTokenizer final : public Tokenizer {
 public:
  // Errors as in Tokenizer::Load.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::filesystem::path& file,
                                                         const TokenizerSettings& settings);

  // The library knows no special tokens in a text. Where they are read, the text between them is encoded piece by
  // piece, with a dummy prefix only at the start of the whole. Text that is not UTF-8 is refused: the library would
  // lose it.
  absl::Status Encode(std::string_view text, const EncodeOptions& options, std::vector<int32_t>* ids) const override;
  std::optional<int32_t> FindSpecial(std::string_view name) const override;
  std::optional<int32_t> bos_id() const override { return bos_id_; }
  std::optional<int32_t> eos_id() const override { return eos_id_; }
  std::string_view kind() const override { return "sentencepiece"; }
  uint64_t fingerprint() const override { return fingerprint_; }

  int32_t size() const override { return table_.size(); }
  std::string_view TokenBytes(int32_t id) const override { return table_.Bytes(id); }
  std::string_view FirstTokenBytes(int32_t id) const override { return table_.FirstBytes(id); }
  bool IsSpecial(int32_t id) const override { return table_.IsSpecial(id); }
  std::string_view TokenName(int32_t id) const override { return table_.Name(id); }
  DecodeRules decode_rules() const override { return rules_; }

 private:
  SentencePieceTokenizer() = default;
  absl::Status AddPieces(const SentencePieceModel& model, const std::string& where);
  absl::Status AddSpecialTokens(const SentencePieceModel& model, const TokenizerSettings& settings,
                                const std::string& where);
  absl::Status ChooseAround(const TokenizerSettings& settings, const std::string& where);
  absl::Status EncodePlain(std::string_view text, bool at_start, std::vector<int32_t>* ids) const;

  std::unique_ptr<SentencePieceLibrary> library_;
  std::unique_ptr<SentencePieceLibrary> continuation_;  // without the dummy prefix; null if the model has none
  TokenTable table_;
  AddedTokens added_tokens_;                                  // control tokens, and tokens of the files beside
  std::map<std::string, int32_t, std::less<>> user_defined_;  // that the library itself finds in a text
  DecodeRules rules_;
  std::optional<int32_t> bos_id_;
  std::optional<int32_t> eos_id_;
  bool add_bos_ = false;
  bool add_eos_ = false;
  uint64_t fingerprint_ = 0;
  mutable std::mutex long_text_mu_;  // held while a long text is encoded
};

}  // namespace statehouse
