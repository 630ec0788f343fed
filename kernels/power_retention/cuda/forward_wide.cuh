// Queues a forward pass in float32 without tensor cores: fp16 and float32, and degree 4 of every type. One type each:
// forward_wide_*.cu.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/fold_wide.cuh"
#include "kernels/power_retention/cuda/prepare.cuh"
#include "kernels/power_retention/cuda/query_wide.cuh"
#include "kernels/power_retention/cuda/scan.cuh"

namespace statehouse::kernels {

template <typename T, int kDim>
absl::Status QueueWide(const RetentionArgs<T>& args, bool has_state, cudaStream_t stream) {
  const unsigned chunks = args.num_chunks, heads = args.heads_kv;
  SumGates<T><<<dim3(chunks, heads), kGateThreads, 0, stream>>>(args);
  if (absl::Status status = LaunchStatus("SumGates"); !status.ok()) return status;
  if constexpr (std::is_same_v<PrefixElement<T>, float>) {  // other types come here without a state
    if (has_state) {
      const unsigned tiles = RetentionStateRows(kDim) / 64;
      FoldChunksWide<T, kDim><<<dim3(tiles, heads, chunks), kWideFoldThreads, 0, stream>>>(args);
      if (absl::Status status = LaunchStatus("FoldChunksWide"); !status.ok()) return status;
      ScanChunks<T, kDim><<<dim3(ScanTiles<kDim>::kBlocks, heads, args.num_sequences), kScanThreads, 0, stream>>>(args);
      if (absl::Status status = LaunchStatus("ScanChunks"); !status.ok()) return status;
    }
  }
  using Query = WideQueryTiles<kDim>;
  if (absl::Status status = AllowShared(QueryChunksWide<T, kDim>, Query::kSharedBytes); !status.ok()) return status;
  QueryChunksWide<T, kDim>
      <<<dim3(2 * args.num_blocks, args.heads_q), Query::kThreads, Query::kSharedBytes, stream>>>(args);
  return LaunchStatus("QueryChunksWide");
}

template <typename T>
absl::Status QueueForwardWide(const RetentionArgs<T>& args, int head_dim, bool has_state, cudaStream_t stream) {
  switch (head_dim) {
    case 16:
      return QueueWide<T, 16>(args, has_state, stream);
    case 32:
      return QueueWide<T, 32>(args, has_state, stream);
    case 64:
      return QueueWide<T, 64>(args, has_state, stream);
    case 128:
      return QueueWide<T, 128>(args, has_state, stream);
    default:
      return absl::UnimplementedError(absl::StrCat("power retention on the GPU: head_dim ", head_dim));
  }
}

}  // namespace statehouse::kernels
