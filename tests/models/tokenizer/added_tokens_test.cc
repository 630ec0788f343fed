#include "models/tokenizer/added_tokens.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace statehouse {
namespace {

using testing::ElementsAre;

AddedToken Token(const char* content, int32_t id) {
  AddedToken token;
  token.content = content;
  token.id = id;
  token.normalized = false;
  return token;
}

// Pieces as "text", tokens as "id:text".
std::vector<std::string> Pieces(const AddedTokens& tokens, std::string_view text, bool with_special = true) {
  std::vector<AddedTokens::Piece> pieces;
  tokens.SplitRaw(text, with_special, &pieces);
  std::vector<std::string> out;
  for (const AddedTokens::Piece& piece : pieces) {
    out.push_back((piece.id.has_value() ? std::to_string(*piece.id) + ":" : "") + std::string(piece.text));
  }
  return out;
}

TEST(AddedTokens, LongestTokenAtTheLeftmostPlaceWins) {
  const AddedTokens tokens({Token("ab", 1), Token("abc", 2), Token("bcd", 3)}, Normalizer());
  EXPECT_THAT(Pieces(tokens, "xabcdab"), ElementsAre("x", "2:abc", "d", "1:ab"));
}

TEST(AddedTokens, PrefixThatDoesNotBecomeAToken_IsText) {
  const AddedTokens tokens({Token("<|end|>", 1)}, Normalizer());
  EXPECT_THAT(Pieces(tokens, "<|end<|end|>|>"), ElementsAre("<|end", "1:<|end|>", "|>"));
}

TEST(AddedTokens, SpecialTokens_AreReadOnlyWhereAsked) {
  AddedToken special = Token("<s>", 1);
  special.special = true;
  const AddedTokens tokens({special, Token("<think>", 2)}, Normalizer());
  EXPECT_THAT(Pieces(tokens, "<s><think>"), ElementsAre("1:<s>", "2:<think>"));
  EXPECT_THAT(Pieces(tokens, "<s><think>", /*with_special=*/false), ElementsAre("<s>", "2:<think>"));
}

TEST(AddedTokens, Strip_TakesWhiteSpaceOfUnicodeAround) {
  AddedToken token = Token("<m>", 1);
  token.lstrip = token.rstrip = true;
  const AddedTokens tokens({token}, Normalizer());
  EXPECT_THAT(Pieces(tokens, "a \xE3\x80\x80<m>\n b"), ElementsAre("a", "1: \xE3\x80\x80<m>\n ", "b"));
  EXPECT_THAT(Pieces(tokens, "<m> <m>"), ElementsAre("1:<m> ", "1:<m>"));
}

TEST(AddedTokens, SingleWord_IsNotFoundInsideAWord) {
  AddedToken token = Token("cat", 1);
  token.single_word = true;
  const AddedTokens tokens({token}, Normalizer());
  EXPECT_THAT(Pieces(tokens,
                     "cat-cat cats \xC3\xA9"
                     "cat"),
              ElementsAre("1:cat", "-", "1:cat",
                          " cats \xC3\xA9"
                          "cat"));
}

TEST(AddedTokens, NormalizedToken_IsSearchedAsItIsNormalized) {
  AddedToken token = Token("e\xCC\x81", 1);
  token.normalized = true;
  const AddedTokens tokens({token}, Normalizer::Nfc());
  std::vector<AddedTokens::Piece> pieces;
  tokens.SplitNormalized("a\xC3\xA9", true, &pieces);
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_EQ(pieces[1].id, 1);
  EXPECT_THAT(Pieces(tokens, "e\xCC\x81"), ElementsAre("e\xCC\x81"));
  EXPECT_EQ(tokens.Find("e\xCC\x81"), 1);
}

}  // namespace
}  // namespace statehouse
