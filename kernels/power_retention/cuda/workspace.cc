#include "kernels/power_retention/cuda/workspace.h"

namespace statehouse::kernels {

namespace {

// Only the tensor cores' passes prepare rows, and keep the states between chunks in 16 bits.
bool HasTensorCores(const CudaRetentionShape& shape) {
  return shape.dtype == RetentionDtype::kBf16 && shape.degree == 2;
}
int ChunkRows(const CudaRetentionShape& shape) {
  return static_cast<int>((shape.chunk + kBlockRows - 1) / kBlockRows * kBlockRows);
}

}  // namespace

int64_t StateRowsOf(const CudaRetentionPlan& plan) {
  const CudaRetentionShape& shape = plan.shape();
  return shape.degree == 2 || shape.has_states || plan.has_long_sequence()
             ? RetentionStateRows(shape.head_dim, shape.degree)
             : 0;
}

SavedStates::SavedStates(const CudaRetentionPlan& plan) {
  const CudaRetentionShape& shape = plan.shape();
  const int64_t slots = int64_t{plan.num_chunks()} * shape.heads_kv, chunk_rows = ChunkRows(shape);
  const int64_t rows = StateRowsOf(plan);
  const auto take = [this](int64_t size) { return TakeBytes(size, &bytes); };
  sums = take(slots * chunk_rows * 8);
  key_factors = take(slots * chunk_rows * 4);
  decay = take(slots * 4);
  prefix = take(slots * rows * shape.head_dim * (HasTensorCores(shape) ? 2 : 4));
  prefix_z = take(slots * rows * 4);
}

size_t CudaRetentionSavedBytes(const CudaRetentionPlan& plan) { return SavedStates(plan).bytes; }

ForwardWorkspace::ForwardWorkspace(const CudaRetentionPlan& plan) {
  const CudaRetentionShape& shape = plan.shape();
  const int64_t element = HasTensorCores(shape) ? 2 : 0, prefix_element = HasTensorCores(shape) ? 2 : 4;
  chunk_rows = ChunkRows(shape);
  const int64_t slots = int64_t{plan.num_chunks()} * shape.heads_kv;
  const int64_t rows = StateRowsOf(plan), d = shape.head_dim;
  const auto take = [this](int64_t size) { return TakeBytes(size, &bytes); };
  sums = take(slots * chunk_rows * 8);
  key_factors = take(slots * chunk_rows * 4);
  decay = take(slots * 4);
  keys = take(slots * chunk_rows * d * element);
  values = take(slots * chunk_rows * d * element);
  local = take(slots * rows * d * 4);
  local_z = take(slots * rows * 4);
  prefix = take(slots * rows * d * prefix_element);
  prefix_z = take(slots * rows * 4);
}

}  // namespace statehouse::kernels
