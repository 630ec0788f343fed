#include "kernels/embedding/token_rows.h"

#include <algorithm>
#include <numeric>

namespace statehouse::kernels {

TokenRows FindTokenRows(std::span<const int32_t> tokens) {
  TokenRows out;
  out.rows.resize(tokens.size());
  std::iota(out.rows.begin(), out.rows.end(), 0);
  std::stable_sort(out.rows.begin(), out.rows.end(), [&](int32_t a, int32_t b) { return tokens[a] < tokens[b]; });
  for (size_t i = 0; i < out.rows.size(); ++i) {
    const int32_t token = tokens[out.rows[i]];
    if (!out.tokens.empty() && out.tokens.back() == token) continue;
    out.tokens.push_back(token);
    out.firsts.push_back(static_cast<int32_t>(i));
  }
  out.firsts.push_back(static_cast<int32_t>(tokens.size()));
  return out;
}

}  // namespace statehouse::kernels
