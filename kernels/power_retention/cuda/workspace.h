// Where the parts of a forward pass's workspace lie: byte offsets, each a multiple of 256.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/power_retention/cuda/retention.h"
#include "kernels/power_retention/cuda/tables.h"

namespace statehouse::kernels {

// Where the next `size` bytes lie behind the `bytes` that are taken.
inline size_t TakeBytes(int64_t size, size_t* bytes) {
  const size_t at = *bytes;
  *bytes += (size + 255) / 256 * 256;
  return at;
}

// Rows of a head's state in the workspaces of the plan's calls; 0 for degree 4 where no call has states.
int64_t StateRowsOf(const CudaRetentionPlan& plan);

// What a backward pass over the same plan needs of the forward pass: gate sums and the states before chunks.
struct SavedStates {
  explicit SavedStates(const CudaRetentionPlan& plan);

  size_t sums = 0, key_factors = 0, decay = 0, prefix = 0, prefix_z = 0;
  size_t bytes = 0;
};

struct ForwardWorkspace {
  explicit ForwardWorkspace(const CudaRetentionPlan& plan);

  int chunk_rows = 0;  // C rounded up to whole blocks
  size_t sums = 0, key_factors = 0, decay = 0, keys = 0, values = 0, local = 0, local_z = 0, prefix = 0, prefix_z = 0;
  size_t bytes = 0;
};

}  // namespace statehouse::kernels
