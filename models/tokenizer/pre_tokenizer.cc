#include "models/tokenizer/pre_tokenizer.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/json.h"  // QuotedName
#include "models/tokenizer/unicode_tables.h"
#include "models/tokenizer/utf8.h"

namespace statehouse {
namespace {

using nlohmann::json;

// What the option use_regex of ByteLevel stands for: the words of GPT-2.
constexpr std::string_view kGpt2Words = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

absl::Status Invalid(const std::string& where, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", std::string(what)));
}

absl::StatusOr<bool> BoolField(const json& node, const char* key, std::optional<bool> fallback,
                               const std::string& where) {
  const auto found = node.find(key);
  if (found == node.end() && fallback.has_value()) return *fallback;
  if (found == node.end() || !found->is_boolean())
    return Invalid(absl::StrCat(where, ".", key), "expected true or false");
  return found->get<bool>();
}

}  // namespace

// Reads one node after the other; ByteLevel, which turns bytes into its own alphabet, must come last.
class PreTokenizer::Reader {
 public:
  absl::Status Read(const json& node, const std::string& where) {
    const auto type = node.is_object() ? node.find("type") : node.end();
    if (!node.is_object() || type == node.end() || !type->is_string()) {
      return Invalid(where, "expected an object with a string \"type\"");
    }
    const std::string& name = type->get_ref<const std::string&>();
    if (name == "Sequence") return Sequence(node, where);
    if (ends_with_byte_level_) {
      return absl::UnimplementedError(
          absl::StrCat(where, ".type: ", QuotedName(name), " after ByteLevel is not supported"));
    }
    if (name == "ByteLevel") return ByteLevel(node, where);
    if (name == "Digits") return Digits(node, where);
    if (name == "Split") return SplitNode(node, where);
    return absl::UnimplementedError(
        absl::StrCat(where, ".type: ", QuotedName(name),
                     " is not supported; expected ByteLevel, Digits, Split or a Sequence of them"));
  }

  bool ends_with_byte_level() const { return ends_with_byte_level_; }
  std::vector<Step> TakeSteps() { return std::move(steps_); }

 private:
  absl::Status Sequence(const json& node, const std::string& where) {
    const auto list = node.find("pretokenizers");
    if (list == node.end() || !list->is_array()) return Invalid(where + ".pretokenizers", "expected a list");
    for (size_t i = 0; i < list->size(); ++i) {
      absl::Status status = Read((*list)[i], absl::StrCat(where, ".pretokenizers[", i, "]"));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status ByteLevel(const json& node, const std::string& where) {
    const auto prefix = BoolField(node, "add_prefix_space", std::nullopt, where);
    if (!prefix.ok()) return prefix.status();
    const auto use_regex = BoolField(node, "use_regex", true, where);
    if (!use_regex.ok()) return use_regex.status();
    if (*prefix) steps_.push_back({.kind = Kind::kPrefixSpace});
    if (*use_regex) {
      absl::StatusOr<Regex> words = Regex::Compile(kGpt2Words, where);
      if (!words.ok()) return words.status();
      steps_.push_back({.pattern = *std::move(words)});
    }
    ends_with_byte_level_ = true;
    return absl::OkStatus();
  }

  absl::Status Digits(const json& node, const std::string& where) {
    const auto individual = BoolField(node, "individual_digits", std::nullopt, where);
    if (!individual.ok()) return individual.status();
    steps_.push_back({.kind = Kind::kDigits, .behavior = *individual ? Behavior::kIsolated : Behavior::kContiguous});
    return absl::OkStatus();
  }

  absl::Status SplitNode(const json& node, const std::string& where) {
    const auto pattern = node.find("pattern");
    const bool is_regex =
        pattern != node.end() && pattern->is_object() && pattern->size() == 1 && pattern->contains("Regex");
    const bool is_text =
        pattern != node.end() && pattern->is_object() && pattern->size() == 1 && pattern->contains("String");
    if ((!is_regex && !is_text) || !pattern->begin()->is_string()) {
      return Invalid(where + ".pattern", "expected {\"Regex\": \"…\"} or {\"String\": \"…\"}");
    }
    const std::string& value = pattern->begin()->get_ref<const std::string&>();
    Step step;
    absl::StatusOr<Regex> regex =
        is_regex ? Regex::Compile(value, where + ".pattern.Regex") : Regex::Literal(value, where + ".pattern.String");
    if (!regex.ok()) return regex.status();
    step.pattern = *std::move(regex);
    const auto invert = BoolField(node, "invert", std::nullopt, where);
    if (!invert.ok()) return invert.status();
    step.invert = *invert;
    const auto behavior = node.find("behavior");
    const std::string& name =
        behavior != node.end() && behavior->is_string() ? behavior->get_ref<const std::string&>() : "";
    if (name == "Isolated") {
      step.behavior = Behavior::kIsolated;
    } else if (name == "Removed") {
      step.behavior = Behavior::kRemoved;
    } else if (name == "Contiguous") {
      step.behavior = Behavior::kContiguous;
    } else if (name == "MergedWithPrevious") {
      step.behavior = Behavior::kMergedWithPrevious;
    } else if (name == "MergedWithNext") {
      step.behavior = Behavior::kMergedWithNext;
    } else {
      return Invalid(where + ".behavior",
                     "expected Isolated, Removed, Contiguous, MergedWithPrevious or MergedWithNext");
    }
    steps_.push_back(std::move(step));
    return absl::OkStatus();
  }

  std::vector<Step> steps_;
  bool ends_with_byte_level_ = false;
};

absl::StatusOr<PreTokenizer> PreTokenizer::FromJson(const json& node, const std::string& where) {
  Reader reader;
  if (absl::Status status = reader.Read(node, where); !status.ok()) return status;
  if (!reader.ends_with_byte_level()) {
    return absl::UnimplementedError(absl::StrCat(where, ": expected ByteLevel, alone or at the end of a Sequence"));
  }
  PreTokenizer pre_tokenizer;
  pre_tokenizer.steps_ = reader.TakeSteps();
  pre_tokenizer.description_ = node.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace);
  return pre_tokenizer;
}

absl::Status PreTokenizer::Split(std::string_view text, Words* words) const {
  std::vector<std::string_view> now;
  if (!text.empty()) now.push_back(text);
  std::vector<std::string_view> next;
  std::vector<Piece> pieces;
  for (const Step& step : steps_) {
    next.clear();
    for (const std::string_view word : now) {
      if (step.kind == Kind::kPrefixSpace) {
        next.push_back(word.starts_with(' ') ? word : words->copies.emplace_back(absl::StrCat(" ", std::string(word))));
        continue;
      }
      pieces.clear();
      if (absl::Status status = FindPieces(step, word, &pieces); !status.ok()) return status;
      AddPieces(step, word, pieces, &next);
    }
    now.swap(next);
  }
  words->words.insert(words->words.end(), now.begin(), now.end());
  return absl::OkStatus();
}

// All of `text` as matches and what lies between them, in order.
absl::Status PreTokenizer::FindPieces(const Step& step, std::string_view text, std::vector<Piece>* pieces) {
  std::vector<TextRange> matches;
  if (step.kind == Kind::kDigits) {
    for (size_t begin = 0; begin < text.size();) {
      const int length = FirstCharacterLength(text.substr(begin));
      const size_t size = static_cast<size_t>(length > 0 ? length : 1);
      if (length > 0 && IsNumeric(FirstCharacter(text.substr(begin), length))) matches.push_back({begin, begin + size});
      begin += size;
    }
  } else if (absl::Status status = step.pattern.FindAll(text, &matches); !status.ok()) {
    return status;
  }
  size_t end = 0;
  for (const TextRange& match : matches) {
    if (match.begin > end) pieces->push_back({{end, match.begin}, step.invert});
    pieces->push_back({match, !step.invert});
    end = match.end;
  }
  if (end < text.size()) pieces->push_back({{end, text.size()}, step.invert});
  return absl::OkStatus();
}

void PreTokenizer::AddPieces(const Step& step, std::string_view text, const std::vector<Piece>& pieces,
                             std::vector<std::string_view>* words) {
  std::vector<TextRange> ranges;
  bool previous_match = false;
  const auto add = [&](const Piece& piece, bool joins, bool at_begin) {
    if (joins && !ranges.empty()) {
      (at_begin ? ranges.back().begin : ranges.back().end) = at_begin ? piece.range.begin : piece.range.end;
    } else {
      ranges.push_back(piece.range);
    }
    previous_match = piece.is_match;
  };
  switch (step.behavior) {
    case Behavior::kIsolated:
      for (const Piece& piece : pieces) ranges.push_back(piece.range);
      break;
    case Behavior::kRemoved:
      for (const Piece& piece : pieces) {
        if (!piece.is_match) ranges.push_back(piece.range);
      }
      break;
    case Behavior::kContiguous:
      for (const Piece& piece : pieces) add(piece, piece.is_match == previous_match, /*at_begin=*/false);
      break;
    case Behavior::kMergedWithPrevious:
      for (const Piece& piece : pieces) add(piece, piece.is_match && !previous_match, /*at_begin=*/false);
      break;
    case Behavior::kMergedWithNext:
      for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
        add(*piece, piece->is_match && !previous_match, /*at_begin=*/true);
      }
      break;
  }
  const bool reversed = step.behavior == Behavior::kMergedWithNext;
  for (size_t i = 0; i < ranges.size(); ++i) {
    const TextRange& range = ranges[reversed ? ranges.size() - 1 - i : i];
    if (range.end > range.begin) words->push_back(text.substr(range.begin, range.end - range.begin));
  }
}

}  // namespace statehouse
