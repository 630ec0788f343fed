// Queues the two kernels of a decode step; each instance is a source of its own: decode_*.cu.
#pragma once

#include "absl/status/status.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/decode.cuh"
#include "kernels/power_retention/cuda/decode_combine.cuh"

namespace statehouse::kernels {

template <typename T, int kDim, int kSlices, int kVector, int kGroups>
absl::Status QueueCombine(const DecodeArgs& args, int num_sequences, cudaStream_t stream) {
  const LaunchConfig config(dim3(args.num_rows * kSlices, args.heads_q, num_sequences),
                            kDim / kSlices / kVector * kGroups, 0, stream, args.overlaps);
  return CudaStatus(cudaLaunchKernelEx(config.get(), DecodeCombine<T, kDim, kSlices, kVector, kGroups>, args),
                    "DecodeCombine");
}

template <typename T, typename S, int kDim>
absl::Status QueueDecode(const DecodeArgs& args, int num_sequences, cudaStream_t stream) {
  constexpr int kBytes = DecodeSharedBytes<T, S, kDim>();
  if (absl::Status status = AllowShared(DecodeParts<T, S, kDim>, kBytes); !status.ok()) return status;
  if (absl::Status status = PreferShared(DecodeParts<T, S, kDim>); !status.ok()) return status;
  const unsigned parts = args.tail_parts + args.splits, heads = args.heads_kv;
  const LaunchConfig config(dim3(parts, heads, num_sequences * args.row_groups), kDecodeThreads, kBytes, stream,
                            args.overlaps && args.is_settled);
  const absl::Status status =
      CudaStatus(cudaLaunchKernelEx(config.get(), DecodeParts<T, S, kDim>, args), "DecodeParts");
  if (!status.ok()) return status;
  if (args.splits <= kFewParts)
    return QueueCombine < T, kDim, 1, 2, kDim < 64 ? 64 / kDim : 1 > (args, num_sequences, stream);
  return QueueCombine < T, kDim, kDim < 32 ? 1 : kDim / 32, 1, 8 > (args, num_sequences, stream);
}

}  // namespace statehouse::kernels
