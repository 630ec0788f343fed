// Queues a backward pass in float32 without tensor cores: fp16 and float32, and degree 4 of every type. One type each:
// backward_wide_*.cu.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/backward_fold_wide.cuh"
#include "kernels/power_retention/cuda/backward_gates.cuh"
#include "kernels/power_retention/cuda/backward_scan.cuh"
#include "kernels/power_retention/cuda/folds.h"
#include "kernels/power_retention/cuda/fourth_fold.cuh"
#include "kernels/power_retention/cuda/gradients_wide.cuh"
#include "kernels/power_retention/cuda/prepare.cuh"

namespace statehouse::kernels {

// States before chunks, gradients of states after them, and what crosses chunks.
template <typename T, int kDim>
absl::Status QueueStatesOfBackwardWide(const BackwardArgs<T>& args, cudaStream_t stream) {
  const RetentionArgs<T>& forward = args.forward;
  const unsigned chunks = forward.num_chunks, heads = forward.heads_kv;
  if (args.has_prefix && !args.has_saved) {
    if (absl::Status status = QueueStatesWide<T>(forward, kDim, stream); !status.ok()) return status;
  }
  if (!args.has_suffix) return absl::OkStatus();
  BackwardArgs<T> folded = args;
  folded.forward.folds_first = args.dinitial_state != nullptr;
  folded.forward.folds_last = true;
  static_assert(kScanThreads == 256);  // BackwardWorkspace counts its warps
  if constexpr (kDim <= kMostFourthDim) {
    if (forward.degree == 4) {
      FoldQueriesFourth<T, kDim><<<dim3(kFourthTiles<kDim>, heads, chunks), kFourthThreads, 0, stream>>>(folded);
      if (absl::Status status = LaunchStatus("FoldQueriesFourth"); !status.ok()) return status;
      const dim3 scans(ScanTiles<kDim, 4>::kBlocks, heads, forward.num_sequences);
      ScanGradients<T, kDim, 4><<<scans, kScanThreads, 0, stream>>>(folded);
      return LaunchStatus("ScanGradients");
    }
  }
  if (forward.degree == 4) {
    return absl::UnimplementedError("power retention backward on the GPU: states of degree 4 with head_dim " +
                                    std::to_string(kDim));
  }
  if constexpr (std::is_same_v<PrefixElement<T>, float>) {  // other types come here with degree 4 alone
    const unsigned tiles = RetentionStateRows(kDim) / 64;
    FoldQueriesWide<T, kDim><<<dim3(tiles, heads, chunks), kWideFoldThreads, 0, stream>>>(folded);
    if (absl::Status status = LaunchStatus("FoldQueriesWide"); !status.ok()) return status;
    const dim3 scans(ScanTiles<kDim>::kBlocks, heads, forward.num_sequences);
    ScanGradients<T, kDim><<<scans, kScanThreads, 0, stream>>>(folded);
    return LaunchStatus("ScanGradients");
  }
  return absl::InternalError("power retention backward: a state of this type goes through tensor cores");
}

template <typename T, int kDim, bool kOfQueries>
absl::Status QueueGradientOfRowsWide(const BackwardArgs<T>& args, cudaStream_t stream) {
  using Tiles = WideGradientTiles<kDim>;
  const auto kernel = GradientOfRowsWide<T, kDim, kOfQueries>;
  if (absl::Status status = AllowShared(kernel, Tiles::kSharedBytes); !status.ok()) return status;
  const int heads = kOfQueries ? args.forward.heads_q : args.forward.heads_kv;
  kernel<<<dim3(2 * args.forward.num_blocks, heads), Tiles::kThreads, Tiles::kSharedBytes, stream>>>(args);
  return LaunchStatus("GradientOfRowsWide");
}

template <typename T, int kDim>
absl::Status QueueWideBackward(const BackwardArgs<T>& args, cudaStream_t stream) {
  const RetentionArgs<T>& forward = args.forward;
  const dim3 gates(forward.num_chunks, forward.heads_kv);
  if (!args.has_saved) {
    SumGates<T><<<gates, kGateThreads, 0, stream>>>(forward);
    if (absl::Status status = LaunchStatus("SumGates"); !status.ok()) return status;
  }
  WeighRowsWide<T, kDim><<<dim3(forward.num_blocks, forward.heads_q), kBlockRows, 0, stream>>>(args);
  if (absl::Status status = LaunchStatus("WeighRowsWide"); !status.ok()) return status;
  if (absl::Status status = QueueStatesOfBackwardWide<T, kDim>(args, stream); !status.ok()) return status;
  if (absl::Status status = QueueGradientOfRowsWide<T, kDim, true>(args, stream); !status.ok()) return status;
  if (absl::Status status = QueueGradientOfRowsWide<T, kDim, false>(args, stream); !status.ok()) return status;
  if (args.dlog_G == nullptr) return absl::OkStatus();
  SumGateGradients<T><<<gates, kGateGradientThreads, 0, stream>>>(args);
  return LaunchStatus("SumGateGradients");
}

template <typename T>
absl::Status QueueBackwardWide(const BackwardArgs<T>& args, int head_dim, cudaStream_t stream) {
  switch (head_dim) {
#ifdef STATEHOUSE_CUDA_ALL_INSTANCES
    case 16:
      return QueueWideBackward<T, 16>(args, stream);
    case 32:
      return QueueWideBackward<T, 32>(args, stream);
#endif
    case 64:
      return QueueWideBackward<T, 64>(args, stream);
    case 128:
      return QueueWideBackward<T, 128>(args, stream);
    default:
      return absl::UnimplementedError(
          absl::StrCat("power retention backward on the GPU: head_dim ", head_dim,
                       ": this build has 64 and 128 (16 and 32 with -DSTATEHOUSE_CUDA_INSTANCES=all)"));
  }
}

}  // namespace statehouse::kernels
