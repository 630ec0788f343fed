// Checks of wire fields beside the ranges, which are the engine's: each returns InvalidField(path, value, what is
// allowed). Thread-safety: functions
// without state.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "proto/utf8.h"

namespace statehouse {

// An INVALID_ARGUMENT of a tokenizer ("text: …"), which knows no fields of the wire, said of `field`.
inline absl::Status AtField(std::string_view field, const absl::Status& status) {
  if (!absl::IsInvalidArgument(status) || FieldOf(status).has_value()) return status;
  std::string_view what(status.message().data(), status.message().size());
  if (what.starts_with("text: ")) what.remove_prefix(6);
  return BadField(field, what);
}

inline absl::Status CheckTokenId(std::string_view field, int32_t id, int64_t vocab_size) {
  if (id >= 0 && id < vocab_size) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(id), absl::StrCat("a token id from 0 to ", vocab_size - 1));
}

// proto3 refuses invalid UTF-8 while it parses, but not every client's library is protobuf's own.
inline absl::Status CheckUtf8(std::string_view field, std::string_view text) {
  const size_t valid = ValidUtf8Prefix(text);
  if (valid == text.size()) return absl::OkStatus();
  return InvalidField(field, absl::StrCat("a text whose byte ", valid, " is not UTF-8"), "UTF-8");
}

}  // namespace statehouse
