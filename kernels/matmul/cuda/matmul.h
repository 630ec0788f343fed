// The plain matrix product on the GPU: y = x Wᵀ, or added to y.
//
// kFast is cuBLAS, which chooses its algorithm by shape, so a row's bits may depend on how many rows a call has.
// kDeterministic is a kernel of our own: one chain over the inputs per element, in steps of 16 (bf16) or 1 (float32),
// whatever the number of rows. Thread-safety: one thread, one stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/device.h"
#include "kernels/matmul/cuda/cublas.h"  // CudaMatMulArgs

namespace statehouse::kernels {

enum class MatMulMode { kFast, kDeterministic };

class CudaMatMul {
 public:
  // `is_bf16`: of weights and x; else float32. NOT_FOUND if kFast finds no cuBLAS.
  static absl::StatusOr<CudaMatMul> Make(MatMulMode mode, bool is_bf16, cudaStream_t stream);
  absl::Status Run(const CudaMatMulArgs& args);
  int64_t bytes() const { return static_cast<int64_t>(workspace_.bytes()); }

 private:
  CudaMatMul(bool is_bf16, cudaStream_t stream) : is_bf16_(is_bf16), stream_(stream) {}

  bool is_bf16_;
  cudaStream_t stream_;
  DeviceBuffer workspace_;        // cuBLAS's own, so that it never allocates
  std::optional<Cublas> cublas_;  // kFast
};

// The kernels of kDeterministic.
absl::Status MatMulInOrder(const CudaMatMulArgs& args, bool is_bf16, cudaStream_t stream);

}  // namespace statehouse::kernels
