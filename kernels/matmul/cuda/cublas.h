// cuBLAS, opened at run time: a program that never computes on a GPU starts without it, and a machine without it is
// told so. Only what CudaMatMul calls. Thread-safety: one thread per object.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace statehouse::kernels {

class Cublas {
 public:
  // NOT_FOUND says which file names were tried and what the loader said.
  static absl::StatusOr<Cublas> Open(cudaStream_t stream, void* workspace, size_t workspace_bytes);
  ~Cublas();
  Cublas(Cublas&& other) noexcept;
  Cublas& operator=(Cublas&& other) noexcept;

  // y [rows, outputs] (+)= x [rows, inputs] Wᵀ, W [outputs, inputs], all row-major without gaps.
  struct Product {
    const void* weights = nullptr;
    const void* x = nullptr;
    bool inputs_are_bf16 = false;  // of weights and x
    void* y = nullptr;
    bool y_is_bf16 = false;
    int64_t rows = 0, outputs = 0, inputs = 0;
    bool add = false;
  };
  absl::Status Run(const Product& product);

 private:
  struct Api;
  Cublas(const Api* api, void* handle) : api_(api), handle_(handle) {}

  const Api* api_ = nullptr;
  void* handle_ = nullptr;
};

}  // namespace statehouse::kernels
