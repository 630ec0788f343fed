// What the kernels around a prompt's forward pass are told.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/power_retention/cuda/slot_args.cuh"

namespace statehouse::kernels {

struct SlotBulkArgs {
  SlotKernelArgs slot;
  float* memory;           // the slot
  int32_t first_row;       // of the new rows, in the step
  int64_t first_position;  // of the packed rows; a multiple of the chunk
  int32_t before;          // packed rows that the slot's tail holds already
  int32_t rows;            // packed rows in all
  int64_t folded_after;    // chunks that the state covers afterwards
  void *Q, *K, *V;         // [rows, heads, d] in bf16
  float* log_G;            // [rows, Hk]
  float *S, *z;            // [Hk, P, d], [Hk, P]
};

// Fills Q, K, V and log_G, and S and z if the slot holds a state. Tail rows that the state covers already are made to
// count for nothing.
absl::Status LaunchSlotPack(const SlotBulkArgs& args, int d, bool holds_state, cudaStream_t stream);
// S and z into the slot, and how many chunks they cover.
absl::Status LaunchSlotUnpackState(const SlotBulkArgs& args, int d, cudaStream_t stream);

}  // namespace statehouse::kernels
