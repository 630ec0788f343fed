// Queues the two kernels of a decode step; each instance is a source of its own: decode_*.cu.
#pragma once

#include "absl/status/status.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/decode.cuh"

namespace statehouse::kernels {

template <typename T, typename S, int kDim>
absl::Status QueueDecode(const DecodeArgs& args, int num_sequences, cudaStream_t stream) {
  const unsigned parts = args.tail_parts + args.splits, heads = args.heads_kv;
  DecodeParts<T, S, kDim><<<dim3(parts, heads, num_sequences * args.row_groups), kDecodeThreads, 0, stream>>>(args);
  if (absl::Status status = LaunchStatus("DecodeParts"); !status.ok()) return status;
  const LaunchConfig config(dim3(args.num_rows, args.heads_q, num_sequences), kDim * kCombineGroups, 0, stream,
                            args.overlaps);
  return CudaStatus(cudaLaunchKernelEx(config.get(), DecodeCombine<T, kDim>, args), "DecodeCombine");
}

}  // namespace statehouse::kernels
