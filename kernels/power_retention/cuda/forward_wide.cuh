// Queues a forward pass in float32 without tensor cores: fp16 and float32, and degree 4 of every type. One type each:
// forward_wide_*.cu.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/fold_wide.cuh"
#include "kernels/power_retention/cuda/folds.h"
#include "kernels/power_retention/cuda/fourth_fold.cuh"
#include "kernels/power_retention/cuda/prepare.cuh"
#include "kernels/power_retention/cuda/query_wide_chunks.cuh"
#include "kernels/power_retention/cuda/scan.cuh"

namespace statehouse::kernels {

template <typename T, int kDim>
absl::Status QueueWideStates(const RetentionArgs<T>& args, cudaStream_t stream) {
  const unsigned chunks = args.num_chunks, heads = args.heads_kv, tiles = RetentionStateRows(kDim) / 64;
  if constexpr (kDim <= kMostFourthDim) {
    if (args.degree == 4) {
      FoldKeysFourth<T, kDim><<<dim3(kFourthTiles<kDim>, heads, chunks), kFourthThreads, 0, stream>>>(args);
      if (absl::Status status = LaunchStatus("FoldKeysFourth"); !status.ok()) return status;
      const dim3 scans(ScanTiles<kDim, 4>::kBlocks, heads, args.num_sequences);
      ScanChunks<T, kDim, 4><<<scans, kScanThreads, 0, stream>>>(args);
      return LaunchStatus("ScanChunks");
    }
  }
  if (args.degree == 4) {
    return absl::UnimplementedError("power retention on the GPU: states of degree 4 with head_dim " +
                                    std::to_string(kDim));
  }
  if constexpr (std::is_same_v<PrefixElement<T>, float>) {  // other types come here with degree 4 alone
    FoldChunksWide<T, kDim><<<dim3(tiles, heads, chunks), kWideFoldThreads, 0, stream>>>(args);
    if (absl::Status status = LaunchStatus("FoldChunksWide"); !status.ok()) return status;
    ScanChunks<T, kDim><<<dim3(ScanTiles<kDim>::kBlocks, heads, args.num_sequences), kScanThreads, 0, stream>>>(args);
    return LaunchStatus("ScanChunks");
  }
  return absl::InternalError("power retention on the GPU: a state of this type goes through tensor cores");
}

template <typename T, int kDim>
absl::Status QueueWide(const RetentionArgs<T>& args, bool has_state, cudaStream_t stream) {
  const unsigned chunks = args.num_chunks, heads = args.heads_kv;
  SumGates<T><<<dim3(chunks, heads), kGateThreads, 0, stream>>>(args);
  if (absl::Status status = LaunchStatus("SumGates"); !status.ok()) return status;
  if (has_state) {
    if (absl::Status status = QueueWideStates<T, kDim>(args, stream); !status.ok()) return status;
  }
  using Query = WideQueryTiles<kDim>;
  if (absl::Status status = AllowShared(QueryChunksWide<T, kDim>, Query::kSharedBytes); !status.ok()) return status;
  QueryChunksWide<T, kDim>
      <<<dim3(2 * args.num_blocks, args.heads_q), Query::kThreads, Query::kSharedBytes, stream>>>(args);
  return LaunchStatus("QueryChunksWide");
}

// Calls visit(std::integral_constant<int, d>()) for a head size that there are kernels of.
template <typename Visit>
absl::Status ForWideHeadDim(int head_dim, const Visit& visit) {
  switch (head_dim) {
    case 16:
      return visit(std::integral_constant<int, 16>());
    case 32:
      return visit(std::integral_constant<int, 32>());
    case 64:
      return visit(std::integral_constant<int, 64>());
    case 128:
      return visit(std::integral_constant<int, 128>());
    default:
      return absl::UnimplementedError(absl::StrCat("power retention on the GPU: head_dim ", head_dim));
  }
}

template <typename T>
absl::Status QueueStatesWide(const RetentionArgs<T>& args, int head_dim, cudaStream_t stream) {
  return ForWideHeadDim(head_dim, [&](auto dim) { return QueueWideStates<T, dim>(args, stream); });
}

template <typename T>
absl::Status QueueForwardWide(const RetentionArgs<T>& args, int head_dim, bool has_state, cudaStream_t stream) {
  return ForWideHeadDim(head_dim, [&](auto dim) { return QueueWide<T, dim>(args, has_state, stream); });
}

}  // namespace statehouse::kernels
