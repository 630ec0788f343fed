// Well-formed UTF-8, character by character (Unicode 15, table 3-7). Thread-safety: free functions.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace statehouse {

// Number of bytes of the character that starts with `lead`; 0 if none does.
constexpr int CharacterLength(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;  // a continuation byte, or an overlong form
  if (lead < 0xE0) return 2;
  if (lead < 0xF0) return 3;
  return lead < 0xF5 ? 4 : 0;
}

// Whether `byte` may follow `lead`, the first byte of a character of two or more.
constexpr bool IsSecondByte(unsigned char lead, unsigned char byte) {
  switch (lead) {
    case 0xE0:
      return byte >= 0xA0 && byte <= 0xBF;  // no overlong forms
    case 0xED:
      return byte >= 0x80 && byte <= 0x9F;  // no surrogates
    case 0xF0:
      return byte >= 0x90 && byte <= 0xBF;  // no overlong forms
    case 0xF4:
      return byte >= 0x80 && byte <= 0x8F;  // nothing above U+10FFFF
    default:
      return byte >= 0x80 && byte <= 0xBF;
  }
}

// Number of bytes of the well-formed character that `text` starts with; 0 if there is none.
constexpr int FirstCharacterLength(std::string_view text) {
  if (text.empty()) return 0;
  const unsigned char lead = static_cast<unsigned char>(text[0]);
  const int length = CharacterLength(lead);
  if (length == 0 || text.size() < static_cast<size_t>(length)) return 0;
  for (int i = 1; i < length; ++i) {
    const unsigned char byte = static_cast<unsigned char>(text[static_cast<size_t>(i)]);
    if (i == 1 ? !IsSecondByte(lead, byte) : (byte & 0xC0) != 0x80) return 0;
  }
  return length;
}

// The character of `length` bytes that `text` starts with. REQUIRES: length == FirstCharacterLength(text) > 0.
constexpr char32_t FirstCharacter(std::string_view text, int length) {
  constexpr unsigned char kLeadBits[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
  char32_t code = static_cast<unsigned char>(text[0]) & kLeadBits[length];
  for (int i = 1; i < length; ++i) code = code << 6 | (static_cast<unsigned char>(text[static_cast<size_t>(i)]) & 0x3F);
  return code;
}

// Number of bytes of the longest well-formed beginning of `text`.
constexpr size_t WellFormedPrefix(std::string_view text) {
  size_t end = 0;
  while (end < text.size()) {
    if (static_cast<unsigned char>(text[end]) < 0x80) {
      ++end;
      continue;
    }
    const int length = FirstCharacterLength(text.substr(end));
    if (length == 0) break;
    end += static_cast<size_t>(length);
  }
  return end;
}

// REQUIRES: `code` is a Unicode scalar value.
inline void AppendCharacter(char32_t code, std::string* out) {
  if (code < 0x80) {
    out->push_back(static_cast<char>(code));
    return;
  }
  const int length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  constexpr unsigned char kLead[] = {0, 0, 0xC0, 0xE0, 0xF0};
  out->push_back(static_cast<char>(kLead[length] | code >> (6 * (length - 1))));
  for (int i = length - 2; i >= 0; --i) out->push_back(static_cast<char>(0x80 | (code >> (6 * i) & 0x3F)));
}

}  // namespace statehouse
