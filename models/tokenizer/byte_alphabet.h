// The alphabet of byte-level BPE: 256 printable characters, one per byte, in which vocabularies and merges are written
// ("Ġ" is a space, "Ċ" a line feed). Thread-safety: free functions.
#pragma once

#include <string>
#include <string_view>

namespace statehouse {

// The character that stands for `byte`, in UTF-8.
std::string ByteLevelCharacter(unsigned char byte);

// The bytes that a token stands for: one per character if all are of the alphabet, else those of its spelling.
std::string ByteLevelDecode(std::string_view token);
// Whether all characters of `token` are of the alphabet.
bool IsByteLevel(std::string_view token);

}  // namespace statehouse
