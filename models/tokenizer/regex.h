// Regular expressions of tokenizer files, run by PCRE2 with limits. Thread-safety: const methods may be called from any
// thread.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace statehouse {

struct TextRange {
  size_t begin;
  size_t end;
};

class Regex {
 public:
  // `pattern` is written for Oniguruma (see regex_syntax.h). UNIMPLEMENTED names a construct that is not supported,
  // INVALID_ARGUMENT the place of a mistake; `where` opens the message.
  static absl::StatusOr<Regex> Compile(std::string_view pattern, const std::string& where);
  // Matches `text` itself.
  static absl::StatusOr<Regex> Literal(std::string_view text, const std::string& where);

  // Appends the matches, which do not overlap, in order. An empty match right after another match is passed over.
  // INVALID_ARGUMENT if a match takes more steps than the limit: a pattern that explodes on this text.
  // REQUIRES: `text` is well-formed UTF-8.
  absl::Status FindAll(std::string_view text, std::vector<TextRange>* matches) const;

 private:
  struct Code;
  static absl::StatusOr<Regex> CompileTranslated(const std::string& pattern, const std::string& where);

  std::shared_ptr<const Code> code_;
};

}  // namespace statehouse
