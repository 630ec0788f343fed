#include <cuda_bf16.h>

#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/status.h"
#include "kernels/embedding/cuda/embedding.h"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 256;

// Grid (row).
template <typename T>
__global__ void __launch_bounds__(kThreads) Embed(const T* table, CudaEmbedArgs args) {
  LetDependentsStart();
  const int64_t row = blockIdx.x, size = args.size;
  int64_t token = args.tokens[row];
  if (token < 0) token = max(args.chosen[-1 - token], 0);
  const T* from = table + token * size;
  for (int64_t i = threadIdx.x; i < size; i += kThreads) args.out[row * size + i] = static_cast<float>(from[i]);
}

}  // namespace

absl::Status CudaEmbed(const CudaEmbedArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return absl::OkStatus();
  const unsigned grid = static_cast<unsigned>(args.num_rows);
  if (args.is_bf16) {
    Embed<<<grid, kThreads, 0, stream>>>(static_cast<const __nv_bfloat16*>(args.table), args);
  } else {
    Embed<<<grid, kThreads, 0, stream>>>(static_cast<const float*>(args.table), args);
  }
  return LaunchStatus("Embed");
}

}  // namespace statehouse::kernels
