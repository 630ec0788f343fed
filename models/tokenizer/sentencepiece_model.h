// What a SentencePiece model file holds, read and checked before the library sees it. The library trusts its files: a
// malformed one makes it read out of bounds. Thread-safety: plain data.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace statehouse {

struct SentencePieceModel {
  enum class Type { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
  struct Piece {
    std::string_view text;  // in the file's bytes; "▁" stands for a space
    Type type = Type::kNormal;
    unsigned char byte = 0;  // kByte only
  };

  std::vector<Piece> pieces;  // by id
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
};

// Reads the bytes of a model file, which must outlive the result. INVALID_ARGUMENT names the field, UNIMPLEMENTED an
// option that is not supported; `where` opens the message.
absl::StatusOr<SentencePieceModel> ReadSentencePieceModel(std::string_view bytes, const std::string& where);

// The model in `bytes` with add_dummy_prefix off.
std::string WithoutDummyPrefix(std::string_view bytes);

}  // namespace statehouse
