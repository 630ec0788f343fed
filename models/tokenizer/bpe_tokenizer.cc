#include "models/tokenizer/bpe_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "models/json.h"  // QuotedName
#include "models/tokenizer/byte_alphabet.h"
#include "models/tokenizer/utf8.h"

namespace statehouse {
namespace {

constexpr size_t kLargestText = 1 << 30;  // positions in a word are 32-bit

absl::Status Invalid(const std::string& where, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
}

}  // namespace

// Memory that the words of one call share.
struct BpeTokenizer::Scratch {
  WordMerger merger;
  PreTokenizer::Words words;
  std::vector<int32_t> word_ids;
};

absl::StatusOr<std::unique_ptr<Tokenizer>> BpeTokenizer::Create(BpeDefinition definition,
                                                                const TokenizerSettings& settings) {
  std::unique_ptr<BpeTokenizer> tokenizer(new BpeTokenizer);
  tokenizer->normalizer_ = definition.normalizer;
  tokenizer->pre_tokenizer_ = definition.pre_tokenizer;
  tokenizer->fuse_unk_ = definition.fuse_unk;
  tokenizer->ignore_merges_ = definition.ignore_merges;
  if (absl::Status status = tokenizer->AddVocabulary(definition); !status.ok()) return status;
  if (absl::Status status = tokenizer->AddAddedTokens(&definition, settings); !status.ok()) return status;
  if (absl::Status status = tokenizer->AddBytes(definition); !status.ok()) return status;
  if (absl::Status status = tokenizer->AddMerges(definition); !status.ok()) return status;
  if (absl::Status status = tokenizer->CheckAround(definition); !status.ok()) return status;
  tokenizer->IndexWholeWords();
  tokenizer->prefix_ids_ = definition.prefix_ids;
  tokenizer->suffix_ids_ = definition.suffix_ids;
  if (settings.bos_token.has_value()) tokenizer->bos_id_ = tokenizer->added_tokens_.Find(*settings.bos_token);
  if (settings.eos_token.has_value()) tokenizer->eos_id_ = tokenizer->added_tokens_.Find(*settings.eos_token);
  tokenizer->fingerprint_ = tokenizer->ComputeFingerprint(definition);
  return tokenizer;
}

absl::Status BpeTokenizer::AddVocabulary(const BpeDefinition& definition) {
  if (definition.vocab.empty()) return Invalid(definition.vocab_where, "no tokens");
  for (const auto& [name, id] : definition.vocab) {
    if (table_.Has(id)) {
      return Invalid(definition.vocab_where, absl::StrCat("id ", id, " is given to both ", QuotedName(table_.Name(id)),
                                                          " and ", QuotedName(name)));
    }
    table_.Set(id, {.name = name, .bytes = ByteLevelDecode(name)});
  }
  return absl::OkStatus();
}

absl::Status BpeTokenizer::AddAddedTokens(BpeDefinition* definition, const TokenizerSettings& settings) {
  // Tokens that only the files beside name: they are special if the vocabulary has them, and nothing if not.
  std::vector<AddedToken> tokens = std::move(definition->added_tokens);
  absl::flat_hash_map<std::string, size_t> index;
  for (size_t i = 0; i < tokens.size(); ++i) index[tokens[i].content] = i;
  for (const std::string& content : settings.special_tokens) {
    if (const auto known = index.find(content); known != index.end()) {
      tokens[known->second].special = true;
    } else if (const auto found = definition->vocab.find(content); found != definition->vocab.end()) {
      index[content] = tokens.size();
      tokens.push_back({.content = content, .id = found->second, .special = true, .normalized = false});
    }
  }
  added_tokens_ = AddedTokens(std::move(tokens), normalizer_);
  for (size_t i = 0; i < added_tokens_.tokens().size(); ++i) {
    const AddedToken& token = added_tokens_.tokens()[i];
    const auto in_vocab = definition->vocab.find(token.content);
    if (in_vocab != definition->vocab.end() && in_vocab->second != token.id) {
      return Invalid(definition->vocab_where,
                     absl::StrCat("the added token ", QuotedName(token.content), " has the id ", token.id,
                                  " in the files beside, but ", in_vocab->second, " here"));
    }
    if (table_.Has(token.id) && table_.Name(token.id) != token.content) {
      return Invalid(definition->vocab_where,
                     absl::StrCat("id ", token.id, " is given to both ", QuotedName(table_.Name(token.id)),
                                  " and the added token ", QuotedName(token.content)));
    }
    table_.Set(token.id,
               {.name = token.content, .bytes = ByteLevelDecode(added_tokens_.spelling(i)), .special = token.special});
  }
  return absl::OkStatus();
}

absl::Status BpeTokenizer::AddBytes(const BpeDefinition& definition) {
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = definition.vocab.find(ByteLevelCharacter(static_cast<unsigned char>(byte)));
    byte_ids_[static_cast<size_t>(byte)] = found == definition.vocab.end() ? kNoToken : found->second;
    if (found != definition.vocab.end() && table_.IsSpecial(found->second)) {
      return Invalid(definition.vocab_where, absl::StrCat("the special token ", QuotedName(found->first),
                                                          " is a single byte: any text could forge it"));
    }
  }
  if (!definition.unk_token.has_value()) return absl::OkStatus();
  const auto unk = definition.vocab.find(*definition.unk_token);
  if (unk == definition.vocab.end()) {
    return Invalid(definition.vocab_where,
                   absl::StrCat("no token ", QuotedName(*definition.unk_token), ", which unk_token names"));
  }
  unk_id_ = unk->second;
  return absl::OkStatus();
}

absl::Status BpeTokenizer::AddMerges(const BpeDefinition& definition) {
  merges_.Reserve(definition.merges.size());
  for (size_t rank = 0; rank < definition.merges.size(); ++rank) {
    const auto& [left, right] = definition.merges[rank];
    const std::string result = absl::StrCat(left, right);
    int32_t ids[3];
    int count = 0;
    for (const std::string* name : {&left, &right, &result}) {
      const auto found = definition.vocab.find(*name);
      if (found == definition.vocab.end()) {
        return Invalid(definition.merges_where, absl::StrCat("merge ", rank, " needs the token ", QuotedName(*name),
                                                             ", which the vocabulary does not have"));
      }
      ids[count++] = found->second;
    }
    if (table_.IsSpecial(ids[2])) {
      return Invalid(definition.merges_where, absl::StrCat("merge ", rank, " makes the special token ",
                                                           QuotedName(result), ": any text could forge it"));
    }
    merges_.Set(ids[0], ids[1], {static_cast<int32_t>(rank), ids[2]});
  }
  return absl::OkStatus();
}

absl::Status BpeTokenizer::CheckAround(const BpeDefinition& definition) const {
  for (const std::vector<int32_t>* ids : {&definition.prefix_ids, &definition.suffix_ids}) {
    for (const int32_t id : *ids) {
      if (!table_.Has(id))
        return Invalid(definition.vocab_where,
                       absl::StrCat("no token with id ", id, ", which the post-processor adds"));
    }
  }
  return absl::OkStatus();
}

void BpeTokenizer::IndexWholeWords() {
  if (!ignore_merges_) return;
  for (int32_t id = 0; id < table_.size(); ++id) {
    const bool is_word = table_.Has(id) && !table_.IsSpecial(id) && IsByteLevel(table_.Name(id));
    const bool is_added = added_tokens_.Find(table_.Name(id)).has_value();
    if (is_word && !is_added) whole_words_.emplace(table_.Bytes(id), id);
  }
}

uint64_t BpeTokenizer::ComputeFingerprint(const BpeDefinition& definition) const {
  Fingerprint fingerprint;
  fingerprint.Add("byte-level BPE, 1");  // another number where the same files come to be encoded in another way
  table_.AddTo(&fingerprint);
  fingerprint.Add(static_cast<int64_t>(definition.merges.size()));
  for (const auto& [left, right] : definition.merges) {
    fingerprint.Add(left);
    fingerprint.Add(right);
  }
  added_tokens_.AddTo(&fingerprint);
  normalizer_.AddTo(&fingerprint);
  pre_tokenizer_.AddTo(&fingerprint);
  fingerprint.Add(unk_id_);
  fingerprint.Add((fuse_unk_ ? 1 : 0) | (ignore_merges_ ? 2 : 0));
  for (const std::vector<int32_t>* ids : {&prefix_ids_, &suffix_ids_}) {
    fingerprint.Add(static_cast<int64_t>(ids->size()));
    for (const int32_t id : *ids) fingerprint.Add(id);
  }
  return fingerprint.Value();
}

absl::Status BpeTokenizer::Encode(std::string_view text, const EncodeOptions& options,
                                  std::vector<int32_t>* ids) const {
  if (text.size() > kLargestText) {
    return absl::InvalidArgumentError(absl::StrCat("text: ", text.size(), " bytes; expected at most ", kLargestText));
  }
  const size_t before = ids->size();
  if (options.add_special_tokens) ids->insert(ids->end(), prefix_ids_.begin(), prefix_ids_.end());
  absl::Status status = EncodeInner(text, options.parse_special_tokens, ids);
  if (!status.ok()) {
    ids->resize(before);
    return status;
  }
  if (options.add_special_tokens) ids->insert(ids->end(), suffix_ids_.begin(), suffix_ids_.end());
  return absl::OkStatus();
}

absl::Status BpeTokenizer::EncodeInner(std::string_view text, bool with_special, std::vector<int32_t>* ids) const {
  Scratch scratch;
  std::vector<AddedTokens::Piece> raw;
  std::vector<AddedTokens::Piece> pieces;
  added_tokens_.SplitRaw(text, with_special, &raw);
  for (const AddedTokens::Piece& piece : raw) {
    if (piece.id.has_value()) {
      ids->push_back(*piece.id);
      continue;
    }
    std::string normalized;
    if (!normalizer_.is_identity()) normalized = normalizer_.Normalize(piece.text);
    pieces.clear();
    added_tokens_.SplitNormalized(normalizer_.is_identity() ? piece.text : normalized, with_special, &pieces);
    for (const AddedTokens::Piece& part : pieces) {
      if (part.id.has_value()) {
        ids->push_back(*part.id);
      } else if (absl::Status status = EncodePlain(part.text, &scratch, ids); !status.ok()) {
        return status;
      }
    }
  }
  return absl::OkStatus();
}

absl::Status BpeTokenizer::EncodePlain(std::string_view text, Scratch* scratch, std::vector<int32_t>* ids) const {
  while (!text.empty()) {
    const size_t well_formed = WellFormedPrefix(text);
    scratch->words.words.clear();
    scratch->words.copies.clear();
    absl::Status status = pre_tokenizer_.Split(text.substr(0, well_formed), &scratch->words);
    if (!status.ok()) return status;
    text.remove_prefix(well_formed);
    size_t invalid = 0;
    while (invalid < text.size() && FirstCharacterLength(text.substr(invalid)) == 0) ++invalid;
    if (invalid > 0) scratch->words.words.push_back(text.substr(0, invalid));
    text.remove_prefix(invalid);
    for (const std::string_view word : scratch->words.words) {
      if (status = EncodeWord(word, scratch, ids); !status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

absl::Status BpeTokenizer::EncodeWord(std::string_view word, Scratch* scratch, std::vector<int32_t>* ids) const {
  if (ignore_merges_) {
    if (const auto whole = whole_words_.find(word); whole != whole_words_.end()) {
      ids->push_back(whole->second);
      return absl::OkStatus();
    }
  }
  std::vector<int32_t>& word_ids = scratch->word_ids;
  word_ids.clear();
  bool after_unk = false;
  for (const char c : word) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(c)];
    if (id == kNoToken && unk_id_ == kNoToken) {
      return absl::InvalidArgumentError(
          absl::StrFormat("text: the tokenizer has no token for the byte 0x%02X", static_cast<unsigned char>(c)));
    }
    if (id != kNoToken || !fuse_unk_ || !after_unk) word_ids.push_back(id == kNoToken ? unk_id_ : id);
    after_unk = id == kNoToken;
  }
  scratch->merger.MergeAll(merges_, &word_ids);
  ids->insert(ids->end(), word_ids.begin(), word_ids.end());
  return absl::OkStatus();
}

}  // namespace statehouse
