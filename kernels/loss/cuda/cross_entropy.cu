#include "kernels/loss/cuda/cross_entropy.h"

#include <cfloat>

#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/status.h"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 512;

// Grid (row).
template <typename T>
__global__ void __launch_bounds__(kThreads) LossOfRow(CudaCrossEntropyArgs args) {
  __shared__ float shared[kThreads / 32];
  const int64_t row = blockIdx.x, target = args.targets[row];
  T* const logits = static_cast<T*>(args.logits) + row * args.vocab;
  if (target < 0 || target >= args.vocab) {
    if (threadIdx.x == 0) args.losses[row] = 0;
    for (int64_t i = threadIdx.x; i < args.vocab && args.wants_gradient; i += kThreads) Put(logits + i, 0.0f);
    return;
  }
  // A thread's sum is relative to its own largest logit so far, so that the row is read once.
  float top = -FLT_MAX, sum = 0;
  for (int64_t i = threadIdx.x; i < args.vocab; i += kThreads) {
    const float x = Get(logits + i);
    if (x > top) sum *= expf(top - x), top = x;
    sum += expf(x - top);
  }
  const float row_top = BlockMax<kThreads>(top, shared);
  const float row_sum = BlockSum<kThreads>(sum * expf(top - row_top), shared);
  const float weight = args.weights == nullptr ? 1.0f : args.weights[row];
  // All threads have read the logits (BlockSum's barriers), the target's too.
  if (threadIdx.x == 0) args.losses[row] = weight * (logf(row_sum) - (Get(logits + target) - row_top));
  if (!args.wants_gradient) return;
  __syncthreads();  // the target's logit was read
  const float factor = weight * args.gradient_scale, inverse = 1.0f / row_sum;
  for (int64_t i = threadIdx.x; i < args.vocab; i += kThreads) {
    const float probability = expf(Get(logits + i) - row_top) * inverse;
    Put(logits + i, factor * (i == target ? probability - 1.0f : probability));
  }
}

}  // namespace

absl::Status CudaCrossEntropy(const CudaCrossEntropyArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return absl::OkStatus();
  if (args.logits == nullptr || args.targets == nullptr || args.losses == nullptr)
    return absl::InvalidArgumentError("cross-entropy: logits, targets or losses is null");
  const unsigned grid = static_cast<unsigned>(args.num_rows);
  if (args.is_bf16) {
    LossOfRow<__nv_bfloat16><<<grid, kThreads, 0, stream>>>(args);
  } else {
    LossOfRow<float><<<grid, kThreads, 0, stream>>>(args);
  }
  return LaunchStatus("LossOfRow");
}

}  // namespace statehouse::kernels
