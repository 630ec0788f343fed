// Copies and clears slots of power retention on the GPU (those of decode.h): what a fork and a freed sequence need.
// Both run at the speed of device memory. Thread-safety: calls touch their slots alone.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "kernels/power_retention/cuda/decode.h"

namespace statehouse::kernels {

struct CudaRetentionForkArgs {
  const char* const* from = nullptr;    // base addresses, on the device, one per pair; none is written
  char* const* to = nullptr;            // all distinct
  const int64_t* positions = nullptr;   // of the next row, on the device, one per pair
  const int64_t* state_ends = nullptr;  // likewise; the state is copied if it covers anything, and the rows behind it
  int num_pairs = 0;
};

// Copies what the first slot of each pair holds to the second. What it does not hold is not copied: a target that must
// not keep what it held before is cleared first.
absl::Status CudaRetentionForkSlots(const RetentionSlotLayout& layout, const CudaRetentionForkArgs& args,
                                    cudaStream_t stream);

// Clears bytes [begin, end) of each slot, so that a freed slot can be cleared in slices between steps. `slots` is on
// the device. INVALID_ARGUMENT unless 0 <= begin <= end <= layout.bytes() and both are multiples of 16.
absl::Status CudaRetentionZeroSlots(const RetentionSlotLayout& layout, char* const* slots, int num_slots, size_t begin,
                                    size_t end, cudaStream_t stream);

}  // namespace statehouse::kernels
