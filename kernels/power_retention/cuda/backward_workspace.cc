#include "kernels/power_retention/cuda/backward_workspace.h"

#include <algorithm>

#include "kernels/power_retention/cuda/backward.h"
#include "kernels/power_retention/cuda/tables.h"
#include "kernels/power_retention/cuda/workspace.h"

namespace statehouse::kernels {
namespace {

constexpr int64_t kChunk = 1024;     // of the chunked form
constexpr int64_t kMaxRows = 65536;  // of a chunk

}  // namespace

BackwardWorkspace::BackwardWorkspace(const CudaRetentionPlan& plan, bool has_states) {
  const CudaRetentionShape& shape = plan.shape();
  // Only the tensor cores' passes prepare rows, and keep states and their gradients in 16 bits.
  const bool has_tensor_cores = shape.dtype == RetentionDtype::kBf16 && shape.degree == 2;
  const int64_t element = has_tensor_cores ? 2 : 0, state_element = has_tensor_cores ? 2 : 4;
  chunk_rows = static_cast<int>((shape.chunk + kBlockRows - 1) / kBlockRows * kBlockRows);
  const int64_t slots = int64_t{plan.num_chunks()} * shape.heads_kv, group = shape.heads_q / shape.heads_kv;
  const int64_t P = RetentionStateRows(shape.head_dim, shape.degree), d = shape.head_dim;
  const auto take = [this](int64_t size) { return TakeBytes(size, &bytes); };
  sums = take(slots * chunk_rows * 8);
  key_factors = take(slots * chunk_rows * 4);
  decay = take(slots * 4);
  rows = take(slots * group * chunk_rows * 8);
  query_sums = take(slots * group * chunk_rows * 4);
  key_sums = take(slots * chunk_rows * 8);
  const int64_t states = has_states || plan.has_long_sequence() ? slots : 0;
  keys = take(states * group * chunk_rows * d * element);
  values = take(states * group * chunk_rows * d * element);
  fold_weights = take(has_tensor_cores ? states * group * chunk_rows * 4 : 0);
  local = take(states * P * d * 4);
  local_z = take(states * P * 4);
  prefix = take(states * P * d * state_element);
  prefix_z = take(states * P * 4);
  suffix = take(states * P * d * state_element);
  suffix_z = take(states * P * 4);
  border_parts = static_cast<int>((P * (d + 1) / 4 + 255) / 256 * 8);  // warps of one head's scan
  border = take(states * border_parts * 4);
}

size_t CudaRetentionBackwardWorkspace(const CudaRetentionPlan& plan, bool has_states) {
  return BackwardWorkspace(plan, has_states).bytes;
}

int64_t RetentionBackwardChunk(const CudaRetentionShape& shape, int64_t longest, int64_t crossover) {
  if (shape.degree == 4) {  // a state takes fewer operations from here on, if there is one
    crossover = shape.head_dim == 16 ? 8192 : kMaxRows;
    return std::clamp<int64_t>(longest, 1, crossover);
  }
  if (crossover == 0) {
    // Per row of a query head: 8 products of d with half of all rows, against two products of P x d for the query head
    // and three for its key/value head, and 8 with half a chunk.
    const int64_t P = RetentionStateRows(shape.head_dim),
                  group = std::max(1, shape.heads_q / std::max(1, shape.heads_kv));
    crossover = kChunk + P * (2 * group + 3) / (4 * group);
  }
  return longest <= std::min(crossover, kMaxRows) ? std::max<int64_t>(longest, 1) : kChunk;
}

}  // namespace statehouse::kernels
