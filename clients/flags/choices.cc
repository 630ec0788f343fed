#include "clients/flags/choices.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/flags/numbers.h"

namespace statehouse {

std::string AnyOf(const std::vector<std::string>& words) {
  if (words.size() < 2) return absl::StrJoin(words, "");
  return absl::StrCat(absl::StrJoin(words.begin(), words.end() - 1, ", "), " or ", words.back());
}

CLI::Validator OneOf(const std::vector<std::string>& words) {
  return CLI::Validator(
      [words](std::string& text) {
        if (std::find(words.begin(), words.end(), text) != words.end()) return std::string();
        return std::string(NotAllowed(text, AnyOf(words)).message());
      },
      absl::StrCat("{", absl::StrJoin(words, ","), "}"));  // as the description of the command tree reads it
}

}  // namespace statehouse
