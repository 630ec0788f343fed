#include "clients/cli/command_spec.h"

#include <algorithm>
#include <cctype>
#include <numeric>

namespace statehouse::cli {
namespace {

// Levenshtein distance, a swap of neighbours counting as one.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  std::iota(d[0].begin(), d[0].end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

const CommandSpec* CommandSpec::Find(std::string_view command) const {
  for (const CommandSpec& candidate : commands) {
    if (candidate.name == command) return &candidate;
  }
  return nullptr;
}

std::string EnvNameOf(std::string_view flag) {
  std::string name = "STATEHOUSE_";
  for (char c : flag.substr(std::min(flag.find_first_not_of('-'), flag.size()))) {
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

std::string Nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = word.size() / 3 + 1;  // one slip in three letters, and one more
  for (const std::string& candidate : candidates) {
    const size_t distance = EditDistance(word, candidate);
    const bool is_beginning = word.size() >= 2 && candidate.rfind(word, 0) == 0;
    if (distance < best_distance || (distance == best_distance && best.empty()) || (is_beginning && best.empty())) {
      best = candidate;
      best_distance = std::min(distance, best_distance);
    }
  }
  return best;
}

}  // namespace statehouse::cli
