#include "models/token_ids.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "models/json.h"

namespace statehouse {
namespace {

using nlohmann::json;

std::optional<json> ReadObject(const std::filesystem::path& file) {
  auto document = ReadJsonFile(file);
  if (!document.ok() || !document->is_object()) return std::nullopt;
  return *std::move(document);
}

const json* Member(const json& object, const std::string& key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

std::optional<int64_t> IdOf(const json* value) {
  if (value == nullptr || !value->is_number_integer()) return std::nullopt;
  return value->get<int64_t>();
}

// tokenizer.json: "added_tokens": [{"id", "content"}], "model": {"vocab": {spelling: id}}.
std::optional<int64_t> FindInTokenizerJson(const json& document, const std::string& spelling) {
  if (const json* added = Member(document, "added_tokens"); added != nullptr && added->is_array()) {
    for (const json& token : *added) {
      const json* content = Member(token, "content");
      if (content != nullptr && *content == spelling) return IdOf(Member(token, "id"));
    }
  }
  const json* model = Member(document, "model");
  const json* vocab = model != nullptr ? Member(*model, "vocab") : nullptr;
  return vocab != nullptr ? IdOf(Member(*vocab, spelling)) : std::nullopt;
}

// tokenizer_config.json: "added_tokens_decoder": {"<id>": {"content"}}.
std::optional<int64_t> FindInDecoder(const json& document, const std::string& spelling) {
  const json* decoder = Member(document, "added_tokens_decoder");
  if (decoder == nullptr || !decoder->is_object()) return std::nullopt;
  for (const auto& [key, token] : decoder->items()) {
    const json* content = Member(token, "content");
    int64_t id = 0;
    if (content != nullptr && *content == spelling && absl::SimpleAtoi(key, &id)) return id;
  }
  return std::nullopt;
}

}  // namespace

std::optional<int64_t> FindTokenIdInFiles(const std::filesystem::path& checkpoint_dir, std::string_view spelling) {
  const std::string name(spelling);
  if (const auto document = ReadObject(checkpoint_dir / "tokenizer.json")) {
    if (const auto id = FindInTokenizerJson(*document, name)) return id;
  }
  if (const auto document = ReadObject(checkpoint_dir / "added_tokens.json")) {
    if (const auto id = IdOf(Member(*document, name))) return id;
  }
  if (const auto document = ReadObject(checkpoint_dir / "tokenizer_config.json")) {
    if (const auto id = FindInDecoder(*document, name)) return id;
  }
  if (const auto document = ReadObject(checkpoint_dir / "vocab.json")) {
    if (const auto id = IdOf(Member(*document, name))) return id;
  }
  return std::nullopt;
}

std::optional<std::string> SpecialTokenSpelling(const std::filesystem::path& checkpoint_dir, const char* role) {
  const auto document = ReadObject(checkpoint_dir / "special_tokens_map.json");
  if (!document) return std::nullopt;
  const json* token = Member(*document, role);
  if (token != nullptr && token->is_object()) token = Member(*token, "content");
  if (token == nullptr || !token->is_string()) return std::nullopt;
  return token->get<std::string>();
}

std::vector<int32_t> ReadTokenIds(ConfigReader& reader, const char* key, int64_t vocab_size,
                                  std::vector<std::string>* warnings) {
  std::vector<int32_t> ids;
  if (!reader.Has(key)) return ids;
  const json& value = reader.Value(key);
  const json list = value.is_array() ? value : json::array({value});
  for (const json& item : list) {
    if (!item.is_number_integer()) {
      reader.Invalid(key, ShownValue(value), "a token id or a list of token ids");
      return {};
    }
    // An unsigned number past int64 turns negative here and is out of the vocabulary either way.
    const int64_t id = item.get<int64_t>();
    if (id < 0 || id >= vocab_size) {
      warnings->push_back(absl::StrCat(reader.file(), ": ", key, ": ", ShownValue(item),
                                       " is outside the vocabulary of ", vocab_size, " tokens and is ignored"));
      continue;
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

std::optional<int32_t> FallbackEos(const std::filesystem::path& checkpoint_dir, int64_t vocab_size,
                                   const TokenIdSource& source, std::vector<std::string>* warnings) {
  const auto usable = [&](std::optional<int64_t> id) { return id && *id >= 0 && *id < vocab_size; };
  const std::string file = (checkpoint_dir / "special_tokens_map.json").string();
  std::string found = absl::StrCat(file, " names no eos_token");
  if (const auto spelling = SpecialTokenSpelling(checkpoint_dir, "eos_token")) {
    const auto id = source.resolve ? source.resolve(*spelling) : FindTokenIdInFiles(checkpoint_dir, *spelling);
    if (usable(id)) {
      warnings->push_back(absl::StrCat("eos is ", QuotedName(*spelling), " (id ", *id, "), from ", file));
      return static_cast<int32_t>(*id);
    }
    found = absl::StrCat(file, ": eos_token ", QuotedName(*spelling),
                         id ? " is outside the vocabulary" : " is in no vocabulary file");
  }
  if (usable(source.tokenizer_eos)) {
    warnings->push_back(absl::StrCat("eos is id ", *source.tokenizer_eos, ", from the tokenizer"));
    return source.tokenizer_eos;
  }
  warnings->push_back(
      absl::StrCat("no usable eos_token_id (", found, "): answers end at their token limit or at stop strings only"));
  return std::nullopt;
}

}  // namespace statehouse
