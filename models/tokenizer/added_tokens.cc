#include "models/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "models/tokenizer/unicode_tables.h"
#include "models/tokenizer/utf8.h"

namespace statehouse {
namespace {

bool StartsWithWord(std::string_view text) {
  const int length = FirstCharacterLength(text);
  return length > 0 && IsWordCharacter(FirstCharacter(text, length));
}

// The bytes of the last character of `text`; empty if it does not end with a whole one.
std::string_view LastCharacter(std::string_view text) {
  size_t begin = text.size();
  while (begin > 0 && text.size() - begin < 4) {
    --begin;
    if ((static_cast<unsigned char>(text[begin]) & 0xC0) != 0x80) break;
  }
  const std::string_view last = text.substr(begin);
  return static_cast<size_t>(FirstCharacterLength(last)) == last.size() ? last : std::string_view();
}

bool EndsWithWord(std::string_view text) { return StartsWithWord(LastCharacter(text)); }

size_t SpaceAtEnd(std::string_view text) {
  size_t size = 0;
  while (size < text.size()) {
    const std::string_view last = LastCharacter(text.substr(0, text.size() - size));
    if (last.empty() || !IsWhiteSpace(FirstCharacter(last, static_cast<int>(last.size())))) break;
    size += last.size();
  }
  return size;
}

size_t SpaceAtStart(std::string_view text) {
  size_t size = 0;
  while (size < text.size()) {
    const int length = FirstCharacterLength(text.substr(size));
    if (length == 0 || !IsWhiteSpace(FirstCharacter(text.substr(size), length))) break;
    size += static_cast<size_t>(length);
  }
  return size;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer) : tokens_(std::move(tokens)) {
  raw_.token_at.push_back(-1);
  normalized_.token_at.push_back(-1);
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    spellings_.push_back(token.normalized ? normalizer.Normalize(token.content) : token.content);
    Insert(token.normalized ? &normalized_ : &raw_, spellings_.back(), static_cast<int32_t>(i));
    ids_[token.content] = token.id;
  }
}

void AddedTokens::Insert(Tree* tree, std::string_view spelling, int32_t token) {
  uint32_t node = 0;
  for (const char c : spelling) {
    const uint64_t key = static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(c);
    const auto [child, is_new] = tree->children.try_emplace(key, static_cast<uint32_t>(tree->token_at.size()));
    if (is_new) tree->token_at.push_back(-1);
    node = child->second;
  }
  tree->starts[static_cast<unsigned char>(spelling[0])] = true;
  tree->token_at[node] = token;
}

std::optional<AddedTokens::Match> AddedTokens::LongestAt(const Tree& tree, std::string_view text) const {
  std::optional<Match> longest;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto child = tree.children.find(static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(text[i]));
    if (child == tree.children.end()) break;
    node = child->second;
    if (tree.token_at[node] >= 0) longest = Match{i + 1, tree.token_at[node]};
  }
  return longest;
}

void AddedTokens::Split(const Tree& tree, std::string_view text, bool with_special, std::vector<Piece>* pieces) const {
  size_t done = 0;  // text before this is in a piece already
  size_t at = 0;
  while (at < text.size()) {
    if (!tree.starts[static_cast<unsigned char>(text[at])]) {
      ++at;
      continue;
    }
    const std::optional<Match> match = LongestAt(tree, text.substr(at));
    if (!match.has_value()) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(match->token)];
    size_t begin = at;
    size_t end = at + match->size;
    at = end;
    if (token.special && !with_special) continue;
    if (token.single_word && (EndsWithWord(text.substr(0, begin)) || StartsWithWord(text.substr(end)))) continue;
    if (token.lstrip) begin -= SpaceAtEnd(text.substr(std::min(done, begin), begin - std::min(done, begin)));
    if (token.rstrip) end += SpaceAtStart(text.substr(end));
    if (done < begin) pieces->push_back({text.substr(done, begin - done), std::nullopt});
    pieces->push_back({text.substr(begin, end - begin), token.id});
    done = end;
  }
  if (done < text.size()) pieces->push_back({text.substr(done), std::nullopt});
}

std::optional<int32_t> AddedTokens::Find(std::string_view content) const {
  const auto found = ids_.find(content);
  return found == ids_.end() ? std::nullopt : std::optional<int32_t>(found->second);
}

void AddedTokens::AddTo(Fingerprint* fingerprint) const {
  fingerprint->Add(static_cast<int64_t>(tokens_.size()));
  for (const AddedToken& token : tokens_) {
    fingerprint->Add(token.content);
    fingerprint->Add(token.id);
    fingerprint->Add((token.special ? 1 : 0) | (token.single_word ? 2 : 0) | (token.lstrip ? 4 : 0) |
                     (token.rstrip ? 8 : 0) | (token.normalized ? 16 : 0));
  }
}

}  // namespace statehouse
