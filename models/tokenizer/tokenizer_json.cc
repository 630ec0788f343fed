// Reads tokenizer.json, the file of the `tokenizers` package.
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "models/json.h"
#include "models/tokenizer/bpe_definition.h"
#include "models/tokenizer/token_table.h"

namespace statehouse {
namespace {

using nlohmann::json;

absl::Status Invalid(const std::string& where, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
}

absl::Status Unsupported(const std::string& where, const std::string& what) {
  return absl::UnimplementedError(absl::StrCat(where, ": ", what));
}

// The member `key`; null if there is none.
const json& Member(const json& node, const char* key) {
  static const json kNull;
  if (!node.is_object()) return kNull;
  const auto found = node.find(key);
  return found == node.end() ? kNull : *found;
}

// The string "type" of a node; "" if it has none.
std::string Type(const json& node) {
  const json& type = Member(node, "type");
  return type.is_string() ? type.get<std::string>() : "";
}

absl::Status ReadVocab(const json& vocab, BpeDefinition* definition) {
  if (!vocab.is_object()) return Invalid(definition->vocab_where, "expected an object of tokens and ids");
  definition->vocab.reserve(vocab.size());
  for (const auto& [name, node] : vocab.items()) {
    absl::StatusOr<int32_t> id = ReadTokenId(node, absl::StrCat(definition->vocab_where, "[", QuotedName(name), "]"));
    if (!id.ok()) return id.status();
    definition->vocab.emplace(name, *id);
  }
  return absl::OkStatus();
}

absl::Status ReadMerges(const json& merges, BpeDefinition* definition) {
  const std::string& where = definition->merges_where;
  if (!merges.is_array()) return Invalid(where, "expected a list of pairs");
  definition->merges.reserve(merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    const json& merge = merges[i];
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      definition->merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    // Older files write "a b".
    const std::string text = merge.is_string() ? merge.get<std::string>() : "";
    const size_t space = text.find(' ');
    if (space == text.npos || text.find(' ', space + 1) != text.npos) {
      return Invalid(absl::StrCat(where, "[", i, "]"), "expected two tokens");
    }
    definition->merges.emplace_back(text.substr(0, space), text.substr(space + 1));
  }
  return absl::OkStatus();
}

absl::Status ReadModel(const json& model, const std::string& file, BpeDefinition* definition) {
  const std::string where = file + ": model";
  if (!model.is_object()) return Invalid(where, "expected an object");
  if (Type(model) != "BPE") {
    return Unsupported(where + ".type", absl::StrCat(QuotedName(Type(model)), " is not supported; expected BPE"));
  }
  for (const char* key : {"fuse_unk", "byte_fallback", "ignore_merges"}) {
    const json& node = Member(model, key);
    if (!node.is_null() && !node.is_boolean()) return Invalid(absl::StrCat(where, ".", key), "expected true or false");
  }
  definition->fuse_unk = Member(model, "fuse_unk") == true;
  definition->ignore_merges = Member(model, "ignore_merges") == true;
  if (Member(model, "byte_fallback") == true) {
    return Unsupported(where + ".byte_fallback", "is for models that are not byte-level; expected false");
  }
  if (const json& dropout = Member(model, "dropout"); !dropout.is_null() && dropout != 0.0) {
    return Unsupported(where + ".dropout", "random merges are not supported; expected null");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json& node = Member(model, key);
    const bool is_empty = node.is_string() && node.get_ref<const std::string&>().empty();
    if (!node.is_null() && !is_empty)
      return Unsupported(absl::StrCat(where, ".", key), "is not supported; expected null");
  }
  const json& unk = Member(model, "unk_token");
  if (!unk.is_null() && !unk.is_string()) return Invalid(where + ".unk_token", "expected a string or null");
  if (unk.is_string()) definition->unk_token = unk.get<std::string>();
  if (absl::Status status = ReadVocab(Member(model, "vocab"), definition); !status.ok()) return status;
  return ReadMerges(Member(model, "merges"), definition);
}

// The package gives a token that the model's vocabulary lacks the next free id, whatever the file says. Where the two
// differ there is no telling which one the model was trained with.
absl::Status ReadAddedTokens(const json& list, const std::string& file, BpeDefinition* definition) {
  const std::string where = file + ": added_tokens";
  if (list.is_null()) return absl::OkStatus();
  if (!list.is_array()) return Invalid(where, "expected a list");
  int64_t next_id = static_cast<int64_t>(definition->vocab.size());
  absl::flat_hash_map<std::string, size_t> seen;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string here = absl::StrCat(where, "[", i, "]");
    absl::StatusOr<AddedToken> token = ReadAddedToken(list[i], here);
    if (!token.ok()) return token.status();
    absl::StatusOr<int32_t> id = ReadTokenId(Member(list[i], "id"), here + ".id");
    if (!id.ok()) return id.status();
    const auto [other, is_new] = seen.try_emplace(token->content, i);
    if (!is_new)
      return Invalid(here, absl::StrCat(QuotedName(token->content), " is added_tokens[", other->second, "] already"));
    const auto known = definition->vocab.find(token->content);
    const int64_t expected = known != definition->vocab.end() ? known->second : next_id++;
    if (*id != expected) {
      return Invalid(here + ".id", absl::StrCat(*id, "; expected ", expected,
                                                known != definition->vocab.end()
                                                    ? ", the id of this token in model.vocab"
                                                    : ", the next id after model.vocab and the tokens before"));
    }
    token->id = *id;
    definition->added_tokens.push_back(*std::move(token));
  }
  return absl::OkStatus();
}

absl::Status CheckDecoder(const json& node, const std::string& where) {
  if (Type(node) == "ByteLevel") return absl::OkStatus();
  const json& list = Member(node, "decoders");
  if (Type(node) == "Sequence" && list.is_array() && list.size() == 1)
    return CheckDecoder(list[0], where + ".decoders[0]");
  return Unsupported(
      where, absl::StrCat(node.is_null() ? "null" : QuotedName(Type(node)), " is not supported; expected ByteLevel"));
}

// Appends the ids of one special token of a template.
absl::Status AddTemplateToken(const json& tokens, const json& name, const std::string& where,
                              std::vector<int32_t>* ids) {
  const json& token = name.is_string() ? Member(tokens, name.get<std::string>().c_str()) : name;
  const json& list = Member(token, "ids");
  if (!list.is_array())
    return Invalid(where + ".special_tokens", "expected the ids of each token that \"single\" names");
  for (const json& node : list) {
    absl::StatusOr<int32_t> id = ReadTokenId(node, where + ".special_tokens");
    if (!id.ok()) return id.status();
    ids->push_back(*id);
  }
  return absl::OkStatus();
}

// {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}], …}
absl::Status ReadTemplate(const json& node, const std::string& where, BpeDefinition* definition) {
  const json& single = Member(node, "single");
  if (!single.is_array()) return Invalid(where + ".single", "expected a list");
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
  int num_texts = 0;
  for (const json& piece : single) {
    const json& token = Member(piece, "SpecialToken");
    if (Member(Member(piece, "Sequence"), "id") == "A") {
      ++num_texts;
    } else if (token.is_object()) {
      absl::Status status = AddTemplateToken(Member(node, "special_tokens"), Member(token, "id"), where,
                                             num_texts == 0 ? &prefix : &suffix);
      if (!status.ok()) return status;
    } else {
      return Invalid(where + ".single", "expected SpecialToken and Sequence A");
    }
  }
  if (num_texts != 1) return Unsupported(where + ".single", "expected Sequence A once");
  definition->prefix_ids.insert(definition->prefix_ids.begin(), prefix.begin(), prefix.end());
  definition->suffix_ids.insert(definition->suffix_ids.end(), suffix.begin(), suffix.end());
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const json& node, const std::string& where, BpeDefinition* definition) {
  const std::string type = Type(node);
  if (node.is_null() || type == "ByteLevel") return absl::OkStatus();  // ByteLevel moves offsets, not ids
  if (type == "TemplateProcessing") return ReadTemplate(node, where, definition);
  const json& list = Member(node, "processors");
  if (type != "Sequence" || !list.is_array()) {
    return Unsupported(where + ".type",
                       absl::StrCat(QuotedName(type),
                                    " is not supported; expected ByteLevel, TemplateProcessing or a Sequence of them"));
  }
  for (size_t i = 0; i < list.size(); ++i) {
    absl::Status status = ReadPostProcessor(list[i], absl::StrCat(where, ".processors[", i, "]"), definition);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BpeDefinition> ReadTokenizerJson(const std::filesystem::path& path) {
  absl::StatusOr<json> root = ReadJsonFile(path);
  if (!root.ok()) return root.status();
  const std::string file = path.string();
  if (!root->is_object()) return Invalid(file, "expected an object");
  for (const char* key : {"truncation", "padding"}) {
    if (!Member(*root, key).is_null())
      return Unsupported(absl::StrCat(file, ": ", key), "is not supported; expected null");
  }
  BpeDefinition definition;
  definition.vocab_where = file + ": model.vocab";
  definition.merges_where = file + ": model.merges";
  absl::StatusOr<Normalizer> normalizer = Normalizer::FromJson(Member(*root, "normalizer"), file + ": normalizer");
  if (!normalizer.ok()) return normalizer.status();
  definition.normalizer = *std::move(normalizer);
  absl::Status status = ReadModel(Member(*root, "model"), file, &definition);
  if (!status.ok()) return status;
  const json& pre_tokenizer_node = Member(*root, "pre_tokenizer");
  if (pre_tokenizer_node.is_null())
    return Unsupported(file + ": pre_tokenizer",
                       "null is not supported; expected ByteLevel or a Sequence that ends with it");
  absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::FromJson(pre_tokenizer_node, file + ": pre_tokenizer");
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();
  definition.pre_tokenizer = *std::move(pre_tokenizer);
  status = CheckDecoder(Member(*root, "decoder"), file + ": decoder");
  if (status.ok()) status = ReadPostProcessor(Member(*root, "post_processor"), file + ": post_processor", &definition);
  if (status.ok()) status = ReadAddedTokens(Member(*root, "added_tokens"), file, &definition);
  if (!status.ok()) return status;
  return definition;
}

}  // namespace statehouse
