#include "models/tokenizer/tokenizer_settings.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "models/json.h"
#include "models/tokenizer/token_table.h"

namespace statehouse {
namespace {

using nlohmann::json;

// A token that is searched at every place of every text is kept short.
constexpr size_t kLongestAddedToken = 1024;

absl::Status Invalid(const std::string& where, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
}

// An object with nothing in it if there is no such file.
absl::StatusOr<json> ReadObject(const std::filesystem::path& file) {
  absl::StatusOr<json> root = ReadJsonFile(file);
  if (absl::IsNotFound(root.status())) return json::object();
  if (root.ok() && !root->is_object()) return Invalid(file.string(), "expected an object");
  return root;
}

absl::Status ReadString(const json& root, const char* key, const std::string& file, std::string* out) {
  const auto node = root.find(key);
  if (node == root.end() || node->is_null()) return absl::OkStatus();
  if (!node->is_string()) return Invalid(absl::StrCat(file, ": ", key), "expected a string");
  *out = node->get<std::string>();
  return absl::OkStatus();
}

absl::Status ReadBool(const json& root, const char* key, const std::string& file, std::optional<bool>* out) {
  const auto node = root.find(key);
  if (node == root.end() || node->is_null()) return absl::OkStatus();
  if (!node->is_boolean()) return Invalid(absl::StrCat(file, ": ", key), "expected true or false");
  *out = node->get<bool>();
  return absl::OkStatus();
}

// A token by its spelling, or by an object that holds it as "content".
absl::StatusOr<std::string> ReadSpelling(const json& node, const std::string& where) {
  if (node.is_string()) return node.get<std::string>();
  const auto content = node.is_object() ? node.find("content") : node.end();
  if (!node.is_object() || content == node.end() || !content->is_string()) {
    return Invalid(where, "expected a token: a string, or an object with a string \"content\"");
  }
  return content->get<std::string>();
}

// Keys that name special tokens, in tokenizer_config.json and special_tokens_map.json alike.
absl::Status ReadSpecialTokens(const json& root, const std::string& file, TokenizerSettings* settings) {
  for (const char* key : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
    const auto node = root.find(key);
    if (node == root.end() || node->is_null()) continue;
    absl::StatusOr<std::string> token = ReadSpelling(*node, absl::StrCat(file, ": ", key));
    if (!token.ok()) return token.status();
    if (std::string_view(key) == "bos_token" && !settings->bos_token.has_value()) settings->bos_token = *token;
    if (std::string_view(key) == "eos_token" && !settings->eos_token.has_value()) settings->eos_token = *token;
    settings->special_tokens.push_back(*std::move(token));
  }
  const auto list = root.find("additional_special_tokens");
  if (list == root.end() || list->is_null()) return absl::OkStatus();
  if (!list->is_array()) return Invalid(absl::StrCat(file, ": additional_special_tokens"), "expected a list");
  for (size_t i = 0; i < list->size(); ++i) {
    absl::StatusOr<std::string> token =
        ReadSpelling((*list)[i], absl::StrCat(file, ": additional_special_tokens[", i, "]"));
    if (!token.ok()) return token.status();
    settings->special_tokens.push_back(*std::move(token));
  }
  return absl::OkStatus();
}

// Drops what is said twice; refuses one spelling with two ids and one id with two spellings.
absl::Status CheckAddedTokens(const std::filesystem::path& dir, TokenizerSettings* settings) {
  absl::flat_hash_map<std::string, int32_t> ids;
  absl::flat_hash_map<int32_t, std::string> contents;
  std::vector<AddedToken> tokens;
  for (AddedToken& token : settings->added_tokens) {
    const auto [by_content, new_content] = ids.try_emplace(token.content, token.id);
    const auto [by_id, new_id] = contents.try_emplace(token.id, token.content);
    if (by_content->second != token.id || by_id->second != token.content) {
      return Invalid(dir.string(), absl::StrCat("tokenizer_config.json (added_tokens_decoder) and added_tokens.json: ",
                                                QuotedName(token.content), " with id ", token.id, " contradicts ",
                                                QuotedName(by_id->second), " with id ", by_content->second));
    }
    if (new_content && new_id) tokens.push_back(std::move(token));
  }
  settings->added_tokens = std::move(tokens);
  return absl::OkStatus();
}

// {"50257": {"content": "<|x|>", "special": true, …}, …}
absl::Status ReadAddedTokensDecoder(const json& root, const std::string& file, TokenizerSettings* settings) {
  const auto map = root.find("added_tokens_decoder");
  if (map == root.end() || map->is_null()) return absl::OkStatus();
  if (!map->is_object()) return Invalid(absl::StrCat(file, ": added_tokens_decoder"), "expected an object");
  for (const auto& [key, node] : map->items()) {
    const std::string where = absl::StrCat(file, ": added_tokens_decoder[", QuotedName(key), "]");
    int64_t id = -1;
    if (!absl::SimpleAtoi(key, &id) || id < 0 || id > TokenTable::kLargestId) {
      return Invalid(where, absl::StrCat("expected an id from 0 to ", TokenTable::kLargestId));
    }
    absl::StatusOr<AddedToken> token = ReadAddedToken(node, where);
    if (!token.ok()) return token.status();
    token->id = static_cast<int32_t>(id);
    settings->added_tokens.push_back(*std::move(token));
  }
  return absl::OkStatus();
}

// {"<|x|>": 50257, …}
absl::Status ReadAddedTokens(const json& root, const std::string& file, TokenizerSettings* settings) {
  for (const auto& [content, node] : root.items()) {
    const std::string where = absl::StrCat(file, ": ", QuotedName(content));
    absl::StatusOr<int32_t> id = ReadTokenId(node, where);
    if (!id.ok()) return id.status();
    if (content.empty() || content.size() > kLongestAddedToken) {
      return Invalid(where, absl::StrCat("expected 1 to ", kLongestAddedToken, " bytes of text"));
    }
    AddedToken token;
    token.content = content;
    token.id = *id;
    settings->added_tokens.push_back(std::move(token));
  }
  return absl::OkStatus();
}

absl::Status ReadTokenizerConfig(const json& root, const std::string& file, TokenizerSettings* settings) {
  for (const auto& [key, out] : {std::pair<const char*, std::string*>{"tokenizer_class", &settings->tokenizer_class},
                                 {"statehouse_chat_template", &settings->statehouse_chat_template}}) {
    if (absl::Status status = ReadString(root, key, file, out); !status.ok()) return status;
  }
  for (const auto& [key, out] :
       {std::pair<const char*, std::optional<bool>*>{"add_bos_token", &settings->add_bos_token},
        {"add_eos_token", &settings->add_eos_token},
        {"add_prefix_space", &settings->add_prefix_space}}) {
    if (absl::Status status = ReadBool(root, key, file, out); !status.ok()) return status;
  }
  // Some checkpoints have a list of named templates here instead of one; those are not for us to choose from.
  if (const auto node = root.find("chat_template"); node != root.end() && node->is_string()) {
    settings->chat_template = node->get<std::string>();
  }
  if (absl::Status status = ReadSpecialTokens(root, file, settings); !status.ok()) return status;
  return ReadAddedTokensDecoder(root, file, settings);
}

}  // namespace

absl::StatusOr<int32_t> ReadTokenId(const json& node, const std::string& where) {
  if (!node.is_number_integer() || (!node.is_number_unsigned() && node.get<int64_t>() < 0) ||
      node.get<uint64_t>() > static_cast<uint64_t>(TokenTable::kLargestId)) {
    return Invalid(where, absl::StrCat("expected a token id, an integer from 0 to ", TokenTable::kLargestId));
  }
  return node.get<int32_t>();
}

absl::StatusOr<AddedToken> ReadAddedToken(const json& node, const std::string& where) {
  const auto content = node.is_object() ? node.find("content") : node.end();
  if (!node.is_object() || content == node.end() || !content->is_string()) {
    return Invalid(where, "expected an object with a string \"content\"");
  }
  AddedToken token;
  token.content = content->get<std::string>();
  if (token.content.empty() || token.content.size() > kLongestAddedToken) {
    return Invalid(where + ".content", absl::StrCat("expected 1 to ", kLongestAddedToken, " bytes"));
  }
  std::optional<bool> special, single_word, lstrip, rstrip, normalized;
  for (const auto& [key, out] : {std::pair<const char*, std::optional<bool>*>{"special", &special},
                                 {"single_word", &single_word},
                                 {"lstrip", &lstrip},
                                 {"rstrip", &rstrip},
                                 {"normalized", &normalized}}) {
    if (absl::Status status = ReadBool(node, key, where, out); !status.ok()) return status;
  }
  token.special = special.value_or(false);
  token.single_word = single_word.value_or(false);
  token.lstrip = lstrip.value_or(false);
  token.rstrip = rstrip.value_or(false);
  token.normalized = normalized.value_or(!token.special);
  return token;
}

absl::StatusOr<TokenizerSettings> ReadTokenizerSettings(const std::filesystem::path& checkpoint_dir) {
  TokenizerSettings settings;
  absl::Status status;
  const auto read = [&](const char* name, absl::Status (*reader)(const json&, const std::string&, TokenizerSettings*)) {
    if (!status.ok()) return;
    const std::filesystem::path file = checkpoint_dir / name;
    absl::StatusOr<json> root = ReadObject(file);
    status = root.ok() ? reader(*root, file.string(), &settings) : root.status();
  };
  read("tokenizer_config.json", ReadTokenizerConfig);
  read("special_tokens_map.json", ReadSpecialTokens);
  read("added_tokens.json", ReadAddedTokens);
  read("config.json", [](const json& root, const std::string& file, TokenizerSettings* out) {
    return ReadString(root, "model_type", file, &out->model_type);
  });
  if (status.ok()) status = CheckAddedTokens(checkpoint_dir, &settings);
  if (!status.ok()) return status;
  return settings;
}

}  // namespace statehouse
