// cuBLAS, opened at run time: a program that never computes on a GPU starts without it, and a machine without it is
// told so. Only what CudaMatMul calls. Thread-safety: one thread per object.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace statehouse::kernels {

// y = x Wᵀ, or added to y; all row-major without gaps.
struct CudaMatMulArgs {
  const void* weights = nullptr;  // [outputs, inputs]
  const void* x = nullptr;        // [rows, inputs], of the weights' type
  void* y = nullptr;              // [rows, outputs]
  bool y_is_bf16 = false;
  int64_t rows = 0;
  int64_t outputs = 0;
  int64_t inputs = 0;  // a multiple of 8
  bool add = false;    // to a float32 y
};

class Cublas {
 public:
  // NOT_FOUND says which file names were tried and what the loader said.
  static absl::StatusOr<Cublas> Open(cudaStream_t stream, void* workspace, size_t workspace_bytes);
  ~Cublas();
  Cublas(Cublas&& other) noexcept;
  Cublas& operator=(Cublas&& other) noexcept;

  // `inputs_are_bf16`: of weights and x; else float32.
  absl::Status Run(const CudaMatMulArgs& args, bool inputs_are_bf16);

 private:
  struct Api;
  Cublas(const Api* api, void* handle) : api_(api), handle_(handle) {}

  const Api* api_ = nullptr;
  void* handle_ = nullptr;
};

}  // namespace statehouse::kernels
