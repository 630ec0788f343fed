// Reads vocab.json and merges.txt, the files of GPT-2. They do not say how words are split: the family does.
#include <algorithm>
#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "models/json.h"
#include "models/tokenizer/bpe_definition.h"
#include "models/tokenizer/utf8.h"

namespace statehouse {
namespace {

using nlohmann::json;

constexpr int64_t kLargestMergesFile = 64 << 20;

constexpr std::string_view kGpt2 = R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true})";
constexpr std::string_view kGpt2Prefixed = R"({"type": "ByteLevel", "add_prefix_space": true, "use_regex": true})";
constexpr std::string_view kStarCoder2 = R"({"type": "Sequence", "pretokenizers": [
    {"type": "Digits", "individual_digits": true},
    {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}]})";
constexpr std::string_view kQwen = R"({"type": "Sequence", "pretokenizers": [
    {"type": "Split", "behavior": "Isolated", "invert": false, "pattern": {"Regex":
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})";

bool IsOneOf(std::string_view value, std::initializer_list<std::string_view> values) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

absl::Status ChooseWords(const TokenizerSettings& settings, BpeDefinition* definition) {
  const bool is_qwen = settings.tokenizer_class.starts_with("Qwen") ||
                       IsOneOf(settings.model_type, {"brumby", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"});
  const bool is_starcoder = IsOneOf(settings.model_type, {"powercoder", "starcoder2", "gpt_bigcode"});
  const std::string_view words = is_qwen                                     ? kQwen
                                 : is_starcoder                              ? kStarCoder2
                                 : settings.add_prefix_space.value_or(false) ? kGpt2Prefixed
                                                                             : kGpt2;
  const std::string where = "built-in pre-tokenizer";
  absl::StatusOr<json> node = ParseJson(words, where);
  if (!node.ok()) return node.status();
  absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::FromJson(*node, where);
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();
  definition->pre_tokenizer = *std::move(pre_tokenizer);
  if (is_qwen) definition->normalizer = Normalizer::Nfc();
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadText(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error)) {
    return absl::NotFoundError(absl::StrCat(file.string(), ": no such file; vocab.json needs it"));
  }
  const int64_t size = static_cast<int64_t>(std::filesystem::file_size(file, error));
  if (error || size > kLargestMergesFile) {
    return absl::InvalidArgumentError(absl::StrCat(file.string(), ": expected at most ", kLargestMergesFile, " bytes"));
  }
  std::string text(static_cast<size_t>(size), '\0');
  std::ifstream stream(file, std::ios::binary);
  if (!stream.read(text.data(), size))
    return absl::InvalidArgumentError(absl::StrCat(file.string(), ": cannot be read"));
  return text;
}

absl::Status ReadMerges(const std::filesystem::path& file, BpeDefinition* definition) {
  absl::StatusOr<std::string> text = ReadText(file);
  if (!text.ok()) return text.status();
  std::string_view rest = *text;
  for (int64_t line_number = 1; !rest.empty(); ++line_number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.starts_with("#version")) continue;
    const size_t space = line.find(' ');
    if (space == line.npos || line.find(' ', space + 1) != line.npos || WellFormedPrefix(line) != line.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat(file.string(), ":", line_number, ": expected two tokens with a space between"));
    }
    definition->merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  return absl::OkStatus();
}

absl::Status ReadVocab(const std::filesystem::path& file, BpeDefinition* definition) {
  absl::StatusOr<json> root = ReadJsonFile(file);
  if (!root.ok()) return root.status();
  if (!root->is_object())
    return absl::InvalidArgumentError(absl::StrCat(file.string(), ": expected an object of tokens and ids"));
  definition->vocab.reserve(root->size());
  for (const auto& [name, node] : root->items()) {
    absl::StatusOr<int32_t> id = ReadTokenId(node, absl::StrCat(file.string(), ": ", QuotedName(name)));
    if (!id.ok()) return id.status();
    definition->vocab.emplace(name, *id);
  }
  return absl::OkStatus();
}

// The id of a token that a flag asks to put around every text.
absl::Status AddAround(const std::optional<bool>& flag, const char* flag_name, const std::optional<std::string>& token,
                       const BpeDefinition& definition, std::vector<int32_t>* ids) {
  if (!flag.value_or(false)) return absl::OkStatus();
  if (token.has_value()) {
    for (const AddedToken& added : definition.added_tokens) {
      if (added.content == *token) {
        ids->push_back(added.id);
        return absl::OkStatus();
      }
    }
    if (const auto found = definition.vocab.find(*token); found != definition.vocab.end()) {
      ids->push_back(found->second);
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("tokenizer_config.json: ", flag_name, " is true, but the tokenizer has no such token"));
}

}  // namespace

absl::StatusOr<BpeDefinition> ReadVocabAndMerges(const std::filesystem::path& dir, const TokenizerSettings& settings) {
  BpeDefinition definition;
  definition.vocab_where = (dir / "vocab.json").string();
  definition.merges_where = (dir / "merges.txt").string();
  absl::Status status = ReadVocab(dir / "vocab.json", &definition);
  if (status.ok()) status = ReadMerges(dir / "merges.txt", &definition);
  if (status.ok()) status = ChooseWords(settings, &definition);
  if (!status.ok()) return status;
  definition.added_tokens = settings.added_tokens;
  status = AddAround(settings.add_bos_token, "add_bos_token", settings.bos_token, definition, &definition.prefix_ids);
  if (status.ok()) {
    status = AddAround(settings.add_eos_token, "add_eos_token", settings.eos_token, definition, &definition.suffix_ids);
  }
  if (!status.ok()) return status;
  return definition;
}

}  // namespace statehouse
