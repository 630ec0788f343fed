// Regular expressions of tokenizer files, in the syntax of Oniguruma, rewritten for PCRE2. Thread-safety: free
// functions.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace statehouse {

// The pattern for PCRE2 (options UTF, UCP; newline LF) that matches the same texts as `pattern` does in Oniguruma with
// Unicode 16. Constructs that mean something else there, or whose meaning would depend on tables we do not have, are
// UNIMPLEMENTED; `where` opens the message, which names the construct.
absl::StatusOr<std::string> TranslateRegex(std::string_view pattern, const std::string& where);

// A pattern that matches `text` itself.
std::string QuoteRegex(std::string_view text);

}  // namespace statehouse
