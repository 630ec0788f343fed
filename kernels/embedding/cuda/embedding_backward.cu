#include "kernels/cuda/status.h"
#include "kernels/embedding/cuda/embedding_backward.h"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 256;

// Grid (token, blocks of columns). Of a frequent token the rows are many, and their loads should not wait for sums.
__global__ void __launch_bounds__(kThreads) EmbedGradient(CudaEmbedBackwardArgs args) {
  const int64_t column = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  if (column >= args.size) return;
  const int first = args.firsts[blockIdx.x], end = args.firsts[blockIdx.x + 1];
  float sum = 0;
#pragma unroll 4
  for (int i = first; i < end; ++i) sum += args.dout[args.rows[i] * args.size + column];
  args.dtable[args.tokens[blockIdx.x] * args.size + column] += sum;
}

}  // namespace

absl::Status CudaEmbedBackward(const CudaEmbedBackwardArgs& args, cudaStream_t stream) {
  if (args.num_tokens == 0 || args.size == 0) return absl::OkStatus();
  if (args.dout == nullptr || args.tokens == nullptr || args.firsts == nullptr || args.rows == nullptr ||
      args.dtable == nullptr) {
    return absl::InvalidArgumentError("embedding backward: dout, tokens, firsts, rows or dtable is null");
  }
  const dim3 grid(static_cast<unsigned>(args.num_tokens), static_cast<unsigned>((args.size + kThreads - 1) / kThreads));
  EmbedGradient<<<grid, kThreads, 0, stream>>>(args);
  return LaunchStatus("EmbedGradient");
}

}  // namespace statehouse::kernels
