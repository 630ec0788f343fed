#include "models/tokenizer/sentencepiece_tokenizer.h"

#include <algorithm>
#include <fstream>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/json.h"  // QuotedName
#include "models/tokenizer/fingerprint.h"
#include "models/tokenizer/utf8.h"

namespace statehouse {
namespace {

using Type = SentencePieceModel::Type;

constexpr int64_t kLargestFile = 64 << 20;
// The library takes up to about 240 bytes of memory per byte of text: long ones one at a time, and none too long.
constexpr size_t kLargestText = 8 << 20;
constexpr size_t kLongText = 1 << 20;
constexpr std::string_view kSpace = "\xE2\x96\x81";  // "▁", U+2581

absl::Status Invalid(const std::string& where, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
}

absl::StatusOr<std::string> ReadBytes(const std::filesystem::path& file) {
  std::error_code error;
  const int64_t size = static_cast<int64_t>(std::filesystem::file_size(file, error));
  if (error) return Invalid(file.string(), "cannot be read");
  if (size > kLargestFile) return Invalid(file.string(), absl::StrCat(size, " bytes; expected at most ", kLargestFile));
  std::string bytes(static_cast<size_t>(size), '\0');
  std::ifstream stream(file, std::ios::binary);
  if (!stream.read(bytes.data(), size)) return Invalid(file.string(), "cannot be read");
  return bytes;
}

std::string WithSpaces(std::string_view piece) {
  std::string text;
  while (!piece.empty()) {
    const size_t end = std::min(piece.find(kSpace), piece.size());
    text += piece.substr(0, end);
    piece.remove_prefix(end);
    if (piece.empty()) break;
    text += ' ';
    piece.remove_prefix(kSpace.size());
  }
  return text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> SentencePieceTokenizer::Load(const std::filesystem::path& file,
                                                                        const TokenizerSettings& settings) {
  const std::string where = file.string();
  absl::StatusOr<std::string> bytes = ReadBytes(file);
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<SentencePieceModel> model = ReadSentencePieceModel(*bytes, where);
  if (!model.ok()) return model.status();
  std::unique_ptr<SentencePieceTokenizer> tokenizer(new SentencePieceTokenizer);
  std::string error;
  tokenizer->library_ = SentencePieceLibrary::Load(*bytes, &error);
  if (tokenizer->library_ != nullptr && model->add_dummy_prefix) {
    tokenizer->continuation_ = SentencePieceLibrary::Load(WithoutDummyPrefix(*bytes), &error);
  }
  if (!error.empty() || tokenizer->library_ == nullptr)
    return Invalid(where, absl::StrCat("refused by the SentencePiece library: ", error));
  tokenizer->rules_.invalid = DecodeRules::Invalid::kPerByte;
  tokenizer->rules_.special_ends_character = true;
  tokenizer->rules_.start =
      model->remove_extra_whitespaces ? DecodeRules::Start::kUntilText : DecodeRules::Start::kFirstSpace;
  if (absl::Status status = tokenizer->AddPieces(*model, where); !status.ok()) return status;
  if (absl::Status status = tokenizer->AddSpecialTokens(*model, settings, where); !status.ok()) return status;
  if (absl::Status status = tokenizer->ChooseAround(settings, where); !status.ok()) return status;

  Fingerprint fingerprint;
  fingerprint.Add("sentencepiece, 1");  // another number where the same files come to be encoded in another way
  fingerprint.Add(*bytes);
  tokenizer->table_.AddTo(&fingerprint);
  tokenizer->added_tokens_.AddTo(&fingerprint);
  fingerprint.Add(tokenizer->add_bos_ ? tokenizer->bos_id_.value_or(-1) : -1);
  fingerprint.Add(tokenizer->add_eos_ ? tokenizer->eos_id_.value_or(-1) : -1);
  tokenizer->fingerprint_ = fingerprint.Value();
  return tokenizer;
}

absl::Status SentencePieceTokenizer::AddPieces(const SentencePieceModel& model, const std::string& where) {
  const bool strips = model.add_dummy_prefix || model.remove_extra_whitespaces;
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    const SentencePieceModel::Piece& piece = model.pieces[i];
    const int32_t id = static_cast<int32_t>(i);
    std::string text;
    if (piece.type == Type::kByte) {
      text = std::string(1, static_cast<char>(piece.byte));
    } else if (piece.type == Type::kUnknown) {
      std::string error;
      if (!library_->Decode({id}, &text, &error)) return Invalid(where, error);
    } else {
      text = WithSpaces(piece.text);
    }
    const bool is_text = piece.type != Type::kByte && piece.type != Type::kUnknown;
    table_.Set(id, {.name = piece.text,
                    .bytes = text,
                    .special = piece.type == Type::kControl,
                    .drops_first = strips && is_text && piece.text.starts_with(kSpace)});
    if (piece.type == Type::kUserDefined) user_defined_.emplace(piece.text, id);
  }
  return absl::OkStatus();
}

absl::Status SentencePieceTokenizer::AddSpecialTokens(const SentencePieceModel& model,
                                                      const TokenizerSettings& settings, const std::string& where) {
  std::vector<AddedToken> tokens;
  const int32_t num_pieces = static_cast<int32_t>(model.pieces.size());
  for (int32_t id = 0; id < num_pieces; ++id) {
    if (!table_.IsSpecial(id)) continue;
    tokens.push_back({.content = std::string(table_.Name(id)), .id = id, .special = true, .normalized = false});
  }
  // Tokens that were added to the model later.
  for (AddedToken token : settings.added_tokens) {
    if (table_.Has(token.id)) {
      if (table_.Name(token.id) == token.content) continue;
      return Invalid(where, absl::StrCat("id ", token.id, " is ", QuotedName(table_.Name(token.id)),
                                         ", but the files beside call it ", QuotedName(token.content)));
    }
    token.normalized = false;
    const auto& named = settings.special_tokens;
    token.special = token.special || std::find(named.begin(), named.end(), token.content) != named.end();
    table_.Set(token.id, {.name = token.content, .bytes = token.content, .special = token.special});
    tokens.push_back(std::move(token));
  }
  added_tokens_ = AddedTokens(std::move(tokens), Normalizer());
  // Pieces that the library finds in any text, but that a file beside calls special.
  for (const std::string& name : settings.special_tokens) {
    if (const auto found = user_defined_.find(name); found != user_defined_.end()) table_.MarkSpecial(found->second);
  }
  return absl::OkStatus();
}

absl::Status SentencePieceTokenizer::ChooseAround(const TokenizerSettings& settings, const std::string& where) {
  const auto choose = [&](const std::optional<std::string>& name, int from_model) -> std::optional<int32_t> {
    if (name.has_value()) return FindSpecial(*name);
    return from_model >= 0 ? std::optional<int32_t>(from_model) : std::nullopt;
  };
  bos_id_ = choose(settings.bos_token, library_->bos_id());
  eos_id_ = choose(settings.eos_token, library_->eos_id());
  // Llama's tokenizer puts BOS before a text unless it is told otherwise; the model file itself has no say in it.
  add_bos_ = settings.add_bos_token.value_or(settings.tokenizer_class.starts_with("Llama") && bos_id_.has_value());
  add_eos_ = settings.add_eos_token.value_or(false);
  if (add_bos_ && !bos_id_.has_value())
    return Invalid(where, "add_bos_token is true in tokenizer_config.json, but there is no such token");
  if (add_eos_ && !eos_id_.has_value())
    return Invalid(where, "add_eos_token is true in tokenizer_config.json, but there is no such token");
  return absl::OkStatus();
}

std::optional<int32_t> SentencePieceTokenizer::FindSpecial(std::string_view name) const {
  if (const std::optional<int32_t> id = added_tokens_.Find(name); id.has_value()) return id;
  const auto found = user_defined_.find(name);
  return found == user_defined_.end() ? std::nullopt : std::optional<int32_t>(found->second);
}

absl::Status SentencePieceTokenizer::Encode(std::string_view text, const EncodeOptions& options,
                                            std::vector<int32_t>* ids) const {
  if (text.size() > kLargestText)
    return Invalid("text", absl::StrCat(text.size(), " bytes; expected at most ", kLargestText,
                                        "; send a longer prompt as token ids"));
  if (const size_t end = WellFormedPrefix(text); end != text.size()) {
    return Invalid("text", absl::StrCat("not UTF-8 at byte ", end,
                                        "; this tokenizer (SentencePiece) has no tokens for such bytes"));
  }
  const size_t before = ids->size();
  if (options.add_special_tokens && add_bos_) ids->push_back(*bos_id_);
  std::vector<AddedTokens::Piece> pieces;
  added_tokens_.SplitRaw(text, options.parse_special_tokens, &pieces);
  const size_t first_text = ids->size();
  for (const AddedTokens::Piece& piece : pieces) {
    if (piece.id.has_value()) {
      ids->push_back(*piece.id);
      continue;
    }
    if (absl::Status status = EncodePlain(piece.text, piece.text.data() == text.data(), ids); !status.ok()) {
      ids->resize(before);
      return status;
    }
  }
  if (!options.parse_special_tokens) {
    for (size_t i = first_text; i < ids->size(); ++i) {
      if (!table_.IsSpecial((*ids)[i])) continue;
      const int32_t id = (*ids)[i];
      ids->resize(before);
      return Invalid("text", absl::StrCat("contains the special token ", QuotedName(table_.Name(id)),
                                          ", which this tokenizer cannot encode as plain text"));
    }
  }
  if (options.add_special_tokens && add_eos_) ids->push_back(*eos_id_);
  return absl::OkStatus();
}

absl::Status SentencePieceTokenizer::EncodePlain(std::string_view text, bool at_start,
                                                 std::vector<int32_t>* ids) const {
  const SentencePieceLibrary& library = at_start || continuation_ == nullptr ? *library_ : *continuation_;
  std::vector<int> plain;
  std::string error;
  std::unique_lock<std::mutex> one_at_a_time(long_text_mu_, std::defer_lock);
  if (text.size() > kLongText) one_at_a_time.lock();
  if (!library.Encode(text, &plain, &error))
    return Invalid("text", absl::StrCat("refused by the SentencePiece library: ", error));
  ids->insert(ids->end(), plain.begin(), plain.end());
  return absl::OkStatus();
}

}  // namespace statehouse
