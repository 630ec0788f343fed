#include "kernels/bias/cuda/bias_backward.h"

#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda/elements.cuh"

namespace statehouse::kernels {
namespace {

template <typename T>
struct Elements {
  const T* dy;
  int64_t size;
  __device__ void operator()(int64_t row, int64_t column, float (&sums)[1]) const {
    sums[0] += Get(dy + row * size + column);
  }
};

}  // namespace

size_t CudaBiasBackwardWorkspace(int64_t num_rows, int64_t size) { return 4 * ColumnSumParts(num_rows, size, 1); }

absl::Status CudaBiasBackward(const CudaBiasBackwardArgs& args, cudaStream_t stream) {
  if (args.dy == nullptr || args.dbias == nullptr || args.workspace == nullptr)
    return absl::InvalidArgumentError("bias backward: dy, dbias or workspace is null");
  float* const outs[1] = {args.dbias};
  const auto sum = [&](auto element) {
    using T = decltype(element);
    return SumColumns<1>(args.num_rows, args.size, static_cast<float*>(args.workspace), args.accumulates, outs,
                         Elements<T>{static_cast<const T*>(args.dy), args.size}, stream);
  };
  return args.is_bf16 ? sum(__nv_bfloat16()) : sum(float());
}

}  // namespace statehouse::kernels
