#include "models/tokenizer/byte_alphabet.h"

#include <array>
#include <optional>

#include "models/tokenizer/utf8.h"

namespace statehouse {
namespace {

// Bytes that are printable in Latin-1 stand for themselves; the others, in order, for U+0100 and up.
struct Alphabet {
  std::array<char32_t, 256> character_of = {};
  std::array<int, 0x144> byte_of = {};  // by character; -1 outside the alphabet

  constexpr Alphabet() {
    byte_of.fill(-1);
    char32_t next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      character_of[byte] = printable ? static_cast<char32_t>(byte) : next++;
      byte_of[character_of[byte]] = static_cast<int>(byte);
    }
  }
};
constexpr Alphabet kAlphabet;

std::optional<std::string> Decode(std::string_view token) {
  std::string bytes;
  while (!token.empty()) {
    const int length = FirstCharacterLength(token);
    if (length == 0) return std::nullopt;
    const char32_t code = FirstCharacter(token, length);
    if (code >= kAlphabet.byte_of.size() || kAlphabet.byte_of[code] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kAlphabet.byte_of[code]));
    token.remove_prefix(static_cast<size_t>(length));
  }
  return bytes;
}

}  // namespace

std::string ByteLevelCharacter(unsigned char byte) {
  std::string character;
  AppendCharacter(kAlphabet.character_of[byte], &character);
  return character;
}

std::string ByteLevelDecode(std::string_view token) {
  std::optional<std::string> bytes = Decode(token);
  return bytes.has_value() ? *std::move(bytes) : std::string(token);
}

bool IsByteLevel(std::string_view token) { return Decode(token).has_value(); }

}  // namespace statehouse
