#include "models/tokenizer/tokenizer.h"

#include <system_error>

#include "absl/strings/str_cat.h"
#include "models/tokenizer/bpe_tokenizer.h"
#include "models/tokenizer/detokenizer.h"
#include "models/tokenizer/sentencepiece_tokenizer.h"
#include "models/tokenizer/tokenizer_settings.h"

namespace statehouse {

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::filesystem::path& checkpoint_dir) {
  const auto has = [&](const char* name) {
    std::error_code error;
    return std::filesystem::exists(checkpoint_dir / name, error);
  };
  absl::StatusOr<TokenizerSettings> settings = ReadTokenizerSettings(checkpoint_dir);
  if (!settings.ok()) return settings.status();
  absl::StatusOr<BpeDefinition> definition;
  if (has("tokenizer.json")) {
    definition = ReadTokenizerJson(checkpoint_dir / "tokenizer.json");
  } else if (has("tokenizer.model")) {
    return SentencePieceTokenizer::Load(checkpoint_dir / "tokenizer.model", *settings);
  } else if (has("vocab.json")) {
    definition = ReadVocabAndMerges(checkpoint_dir, *settings);
  } else {
    return absl::NotFoundError(
        absl::StrCat(checkpoint_dir.string(),
                     ": no tokenizer; expected tokenizer.json, tokenizer.model, or vocab.json and merges.txt"));
  }
  if (!definition.ok()) return definition.status();
  return BpeTokenizer::Create(*std::move(definition), *settings);
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool show_special) const {
  Detokenizer detokenizer(this, show_special);
  std::string text;
  for (const int32_t id : ids) detokenizer.Append(id, &text);
  detokenizer.Flush(&text);
  return text;
}

}  // namespace statehouse
