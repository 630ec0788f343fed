// Queues the kernels of one forward pass for one type and head size. Each instance is a source of its own:
// forward_*.cu.
#pragma once

#include "absl/status/status.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/args.cuh"
#include "kernels/power_retention/cuda/fold.cuh"
#include "kernels/power_retention/cuda/fold_sm90.cuh"
#include "kernels/power_retention/cuda/normalizer.cuh"
#include "kernels/power_retention/cuda/prepare.cuh"
#include "kernels/power_retention/cuda/query.cuh"
#include "kernels/power_retention/cuda/query_sm90.cuh"
#include "kernels/power_retention/cuda/scan.cuh"

namespace statehouse::kernels {

// Are there Hopper kernels of the head size?
template <int kDim>
inline constexpr bool kHasSm90 = kDim == 64 || kDim == 128;

template <typename T, int kDim>
absl::Status QueueFold(const RetentionArgs<T>& args, cudaStream_t stream) {
  const unsigned chunks = args.num_chunks, heads = args.heads_kv;
  if constexpr (kHasSm90<kDim>) {
    if (args.has_wgmma) {
      using Fold = FoldTilesSm90<kDim>;
      if (absl::Status status = AllowShared(FoldChunksSm90<T, kDim>, Fold::kSharedBytes); !status.ok()) return status;
      const LaunchConfig config(dim3(Fold::kGrid, heads, chunks), Fold::kThreads, Fold::kSharedBytes, stream, true);
      return CudaStatus(cudaLaunchKernelEx(config.get(), FoldChunksSm90<T, kDim>, args), "FoldChunksSm90");
    }
  }
  using Fold = FoldTiles<kDim>;
  if (absl::Status status = AllowShared(FoldChunks<T, kDim>, Fold::kSharedBytes); !status.ok()) return status;
  FoldChunks<T, kDim><<<dim3(Fold::kGroups, heads, chunks), Fold::kThreads, Fold::kSharedBytes, stream>>>(args);
  return LaunchStatus("FoldChunks");
}

template <typename T, int kDim>
absl::Status QueueQuery(const RetentionArgs<T>& args, cudaStream_t stream) {
  const dim3 grid(args.num_blocks, args.heads_q);
  if constexpr (kHasSm90<kDim>) {
    if (args.has_wgmma) {
      using Query = QueryTilesSm90<kDim>;
      if (absl::Status status = AllowShared(QueryChunksSm90<T, kDim>, Query::kSharedBytes); !status.ok()) return status;
      QueryChunksSm90<T, kDim><<<grid, Query::kThreads, Query::kSharedBytes, stream>>>(args);
      return LaunchStatus("QueryChunksSm90");
    }
  }
  using Query = QueryTiles<kDim>;
  if (absl::Status status = AllowShared(QueryChunks<T, kDim>, Query::kSharedBytes); !status.ok()) return status;
  QueryChunks<T, kDim><<<grid, Query::kThreads, Query::kSharedBytes, stream>>>(args);
  return LaunchStatus("QueryChunks");
}

template <typename T, int kDim>
absl::Status QueueFolds(const RetentionArgs<T>& args, cudaStream_t stream) {
  const unsigned chunks = args.num_chunks, heads = args.heads_kv;
  PrepareRows<T, kDim><<<dim3(args.chunk_rows / kTokenTile, heads, chunks), kPrepareThreads, 0, stream>>>(args);
  if (absl::Status status = LaunchStatus("PrepareRows"); !status.ok()) return status;
  using Normalizer = NormalizerTiles<kDim>;
  if (absl::Status status = AllowShared(FoldNormalizer<T, kDim>, Normalizer::kSharedBytes); !status.ok()) return status;
  FoldNormalizer<T, kDim><<<dim3(chunks, heads), Normalizer::kThreads, Normalizer::kSharedBytes, stream>>>(args);
  if (absl::Status status = LaunchStatus("FoldNormalizer"); !status.ok()) return status;
  if (absl::Status status = QueueFold<T, kDim>(args, stream); !status.ok()) return status;
  ScanChunks<T, kDim><<<dim3(ScanTiles<kDim>::kBlocks, heads, args.num_sequences), kScanThreads, 0, stream>>>(args);
  return LaunchStatus("ScanChunks");
}

// `has_state`: some chunk has something before it, or a final state is wanted.
template <typename T, int kDim>
absl::Status QueueForward(const RetentionArgs<T>& args, bool has_state, cudaStream_t stream) {
  SumGates<T><<<dim3(args.num_chunks, args.heads_kv), kGateThreads, 0, stream>>>(args);
  if (absl::Status status = LaunchStatus("SumGates"); !status.ok()) return status;
  if (has_state) {
    if (absl::Status status = QueueFolds<T, kDim>(args, stream); !status.ok()) return status;
  }
  return QueueQuery<T, kDim>(args, stream);
}

}  // namespace statehouse::kernels
