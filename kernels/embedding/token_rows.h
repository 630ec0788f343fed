// Which rows of a step hold which token: what lets an embedding's gradient be summed without atomics.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace statehouse::kernels {

struct TokenRows {
  std::vector<int32_t> tokens;  // distinct, ascending
  std::vector<int32_t> firsts;  // [tokens + 1]: token i stands in rows[firsts[i]] … rows[firsts[i + 1] - 1]
  std::vector<int32_t> rows;    // ascending for each token
};
// Thread-safety: pure function.
TokenRows FindTokenRows(std::span<const int32_t> tokens);

}  // namespace statehouse::kernels
