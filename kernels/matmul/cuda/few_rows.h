// The plain matrix product for a decode step's few rows, in bf16: bound by reading the weights. They are asked for
// before the kernel that makes x has ended, so that memory is busy throughout a chain of short kernels; bias,
// activation and the sum with what is there happen at the end, in float32. A row's bits do not depend on other rows.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"

namespace statehouse::kernels {

inline constexpr int kMostFewRows = 16;
// Rows that a product may normalise itself: each block does it anew.
inline constexpr int kMostNormedRows = 2;
inline constexpr int64_t kMostNormedInputs = 3072;  // more does not fit a block's registers

// x = norm(row), as CudaNorm() does it (kernels/norm/cuda/norm.h).
struct CudaRowNorm {
  const float* weight = nullptr;  // [inputs]; null: x is what it is
  const float* bias = nullptr;    // [inputs] or null
  float epsilon = 0;
  bool is_rms = false;
};

struct CudaFewRowsArgs {
  const void* weights = nullptr;  // [outputs, inputs] of bf16
  const void* x = nullptr;        // [rows, inputs] of bf16; float32 where there is a norm
  void* y = nullptr;              // [rows, outputs]
  const float* bias = nullptr;    // [outputs] or null
  bool y_is_bf16 = false;
  bool add = false;   // to a float32 y
  bool gelu = false;  // GELU (tanh) of the sum with the bias
  int64_t rows = 0;   // 1 … kMostFewRows
  int64_t outputs = 0;
  int64_t inputs = 0;
  CudaRowNorm norm = {};
};
// Whether there is a kernel for it.
bool HasFewRowsKernel(const CudaFewRowsArgs& args);
// UNIMPLEMENTED where there is none, and for adding to a bf16 y.
absl::Status CudaMultiplyFewRows(const CudaFewRowsArgs& args, cudaStream_t stream);

}  // namespace statehouse::kernels
