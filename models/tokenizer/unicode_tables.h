// Which version of Unicode tokenizers mean. The `tokenizers` package takes each of its character sets from another
// library, each with tables of another age; ids are equal only if ours are of the same age. Checked for every character
// by tests/models/tokenizer/compare_tokenizers.py. Thread-safety: free functions.
#pragma once

#include <span>
#include <string_view>

namespace statehouse {

struct CategoryRange {
  char32_t first;
  char32_t last;
  char category[3];  // general category: "Lu", "Mn", …
};

// Characters of Unicode 16, which regular expressions know there, that PCRE2 may not know yet (Debian 12 has the tables
// of Unicode 14), in order.
std::span<const CategoryRange> NewCharacters();

// General category N, of Unicode 17: the pre-tokenizer Digits.
bool IsNumeric(char32_t code);
// The property White_Space: the flags lstrip and rstrip of added tokens.
bool IsWhiteSpace(char32_t code);
// \w of Unicode (Alphabetic, M, Nd, Pc, Join_Control): the flag single_word of added tokens.
bool IsWordCharacter(char32_t code);
// Characters that the package's NFC, with tables of Unicode 9, takes for unassigned: they do not compose, decompose or
// move.
bool IsUnknownToNfc(char32_t code);

}  // namespace statehouse
