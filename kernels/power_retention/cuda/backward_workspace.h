// Where the parts of a backward pass's workspace lie: byte offsets, each a multiple of 256.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/power_retention/cuda/retention.h"

namespace statehouse::kernels {

struct BackwardWorkspace {
  // Without states there is no room for them: parts from `keys` on are empty.
  BackwardWorkspace(const CudaRetentionPlan& plan, bool has_states);

  int chunk_rows = 0;  // C rounded up to whole blocks
  size_t sums = 0, key_factors = 0, decay = 0, rows = 0, query_sums = 0, key_sums = 0;
  size_t keys = 0, values = 0, fold_weights = 0, local = 0, local_z = 0, prefix = 0, prefix_z = 0, suffix = 0,
         suffix_z = 0, border = 0;
  int border_parts = 0;
  size_t bytes = 0;
};

}  // namespace statehouse::kernels
