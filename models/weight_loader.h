// Fills a tensor table: from a checkpoint's files, or with dummy weights.
// Thread-safety: uses the pool; one call at a time.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/parallel/thread_pool.h"
#include "models/model.h"  // LoadOptions
#include "models/tensor_table.h"
#include "models/weight_files.h"

namespace statehouse {

// Checks every tensor against the table first (missing, extra, mis-shaped, unknown dtype: several are listed at once),
// then packs them one by one. Returns a hash of names, shapes and stored bytes: the same whatever dtype they are loaded
// as, and however they are spread over files. INVALID_ARGUMENT names file, tensor and expectation; RESOURCE_EXHAUSTED
// if memory is short.
absl::StatusOr<uint64_t> LoadTensors(const WeightFiles& files, const TensorTable& table, const LoadOptions& options,
                                     kernels::ThreadPool& pool);

// Random weights of sensible scale, bf16 values that are a function of seed, name and index alone; packed tensor by
// tensor, so that the peak is one bf16 tensor above the result. --dtype auto keeps them bf16. Returns a hash that
// stands for them.
absl::StatusOr<uint64_t> FillDummyTensors(const TensorTable& table, const LoadOptions& options,
                                          kernels::ThreadPool& pool);

}  // namespace statehouse
