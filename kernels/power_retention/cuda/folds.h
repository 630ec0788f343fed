// The parts of a forward pass that the backward pass queues again; instantiated beside QueueForward() and
// QueueForwardWide().
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "kernels/power_retention/cuda/args.cuh"

namespace statehouse::kernels {

// Log gates summed within chunks: sums, key_factors, decay.
template <typename T, int kDim>
absl::Status QueueGates(const RetentionArgs<T>& args, cudaStream_t stream);

// What each chunk adds to a state, from prepared rows: local, local_z.
template <typename T, int kDim>
absl::Status QueueFold(const RetentionArgs<T>& args, cudaStream_t stream);

// The state before each chunk, from K and V: prefix, prefix_z.
template <typename T, int kDim>
absl::Status QueueStates(const RetentionArgs<T>& args, cudaStream_t stream);

// The same in float32 without tensor cores: of fp16 and float32, and of degree 4.
template <typename T>
absl::Status QueueStatesWide(const RetentionArgs<T>& args, int head_dim, cudaStream_t stream);

}  // namespace statehouse::kernels
