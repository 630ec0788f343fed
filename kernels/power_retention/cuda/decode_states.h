// States of slots (decode.h) to and from float32: what a snapshot of a sequence is written from, and read into.
//
// S [slot, Hk, P, d] and z [slot, Hk, P] have the padded layout of retention.h, whose ExportRetentionState() and
// ImportRetentionState() bring them to the canonical form. What is exported holds all that the slot keeps, the rests
// beside bf16 and int8 included; imported again it gives the same bits. What a narrower state cannot hold is rounded to
// nearest. Thread-safety: calls touch their slots alone.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "kernels/power_retention/cuda/decode.h"

namespace statehouse::kernels {

// `slots`: base addresses, on the device. UNIMPLEMENTED for degree 4 with d > 32, which has no state.
absl::Status CudaRetentionExportSlots(const RetentionSlotLayout& layout, const char* const* slots, int num_slots,
                                      float* S, float* z, cudaStream_t stream);
absl::Status CudaRetentionImportSlots(const RetentionSlotLayout& layout, char* const* slots, int num_slots,
                                      const float* S, const float* z, cudaStream_t stream);

}  // namespace statehouse::kernels
