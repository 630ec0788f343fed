// Queues the kernels of one backward pass for one type and head size. Each instance is a source of its own:
// backward_*.cu.
#pragma once

#include "absl/status/status.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/status.h"
#include "kernels/power_retention/cuda/backward_gates.cuh"
#include "kernels/power_retention/cuda/backward_gradients.cuh"
#include "kernels/power_retention/cuda/backward_rows.cuh"
#include "kernels/power_retention/cuda/backward_scan.cuh"
#include "kernels/power_retention/cuda/folds.h"

namespace statehouse::kernels {

// Gradients of states after chunks, and what crosses chunks.
template <typename T, int kDim>
absl::Status QueueGradientStates(const BackwardArgs<T>& args, cudaStream_t stream) {
  const RetentionArgs<T>& forward = args.forward;
  const unsigned chunks = forward.num_chunks, heads = forward.heads_kv;
  BackwardArgs<T> folded = args;
  folded.forward.fold_heads = forward.heads_q / forward.heads_kv;
  folded.forward.folds_first = args.dinitial_state != nullptr;
  folded.forward.folds_last = true;
  folded.forward.fold_weights = args.fold_weights;
  const dim3 tiles(forward.chunk_rows / kTokenTile, forward.heads_q, chunks);
  PrepareQueries<T, kDim><<<tiles, kPrepareThreads, 0, stream>>>(folded);
  if (absl::Status status = LaunchStatus("PrepareQueries"); !status.ok()) return status;
  if (absl::Status status = QueueFold<T, kDim>(folded.forward, stream); !status.ok()) return status;
  static_assert(kScanThreads == 256);  // BackwardWorkspace counts its warps
  const dim3 scans(ScanTiles<kDim>::kBlocks, heads, forward.num_sequences);
  ScanGradients<T, kDim><<<scans, kScanThreads, 0, stream>>>(folded);
  return LaunchStatus("ScanGradients");
}

template <typename T, int kDim, GradientOf kOf, bool kSm90>
absl::Status QueueGradientOfRows(const BackwardArgs<T>& args, cudaStream_t stream) {
  using Tiles = PairTiles<kDim, kOf, kSm90>;
  const auto kernel = GradientOfRows<T, kDim, kOf, kSm90>;
  if (absl::Status status = AllowShared(kernel, Tiles::kSharedBytes); !status.ok()) return status;
  const int heads = kOf == GradientOf::kQueries ? args.forward.heads_q : args.forward.heads_kv;
  kernel<<<dim3(args.forward.num_blocks, heads), Tiles::kThreads, Tiles::kSharedBytes, stream>>>(args);
  return LaunchStatus("GradientOfRows");
}

template <typename T, int kDim, bool kSm90>
absl::Status QueueGradients(const BackwardArgs<T>& args, cudaStream_t stream) {
  if (absl::Status status = QueueGradientOfRows<T, kDim, GradientOf::kQueries, kSm90>(args, stream); !status.ok())
    return status;
  if (absl::Status status = QueueGradientOfRows<T, kDim, GradientOf::kKeys, kSm90>(args, stream); !status.ok())
    return status;
  return QueueGradientOfRows<T, kDim, GradientOf::kValues, kSm90>(args, stream);
}

// The same with the instructions that the call asks for.
template <typename T, int kDim>
absl::Status QueueGradients(const BackwardArgs<T>& args, cudaStream_t stream) {
  if constexpr (kDim == 64 || kDim == 128) {
    if (args.forward.has_wgmma) return QueueGradients<T, kDim, true>(args, stream);
  }
  return QueueGradients<T, kDim, false>(args, stream);
}

template <typename T, int kDim>
absl::Status QueueBackward(const BackwardArgs<T>& args, cudaStream_t stream) {
  const RetentionArgs<T>& forward = args.forward;
  if (!args.has_saved) {
    if (absl::Status status = QueueGates<T, kDim>(forward, stream); !status.ok()) return status;
  }
  WeighRows<T, kDim><<<dim3(forward.num_blocks, forward.heads_q), kWeighThreads, 0, stream>>>(args);
  if (absl::Status status = LaunchStatus("WeighRows"); !status.ok()) return status;
  if (args.has_prefix && !args.has_saved) {
    if (absl::Status status = QueueStates<T, kDim>(forward, stream); !status.ok()) return status;
  }
  if (args.has_suffix) {
    if (absl::Status status = QueueGradientStates<T, kDim>(args, stream); !status.ok()) return status;
  }
  if (absl::Status status = QueueGradients<T, kDim>(args, stream); !status.ok()) return status;
  if (args.dlog_G == nullptr) return absl::OkStatus();
  SumGateGradients<T><<<dim3(forward.num_chunks, forward.heads_kv), kGateGradientThreads, 0, stream>>>(args);
  return LaunchStatus("SumGateGradients");
}

}  // namespace statehouse::kernels
