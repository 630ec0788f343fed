// y = x · Wᵀ (+ bias): the plain matrix product of the model, on weights packed once at load.
//
// Bits: y[i, n] is one chain of fused multiply-adds over k = 0 … K-1, in that order, starting at 0, whatever the number
// of rows, threads or the instruction set. bf16 weights are widened exactly. int8: one such chain over the integers of
// each block of 64 inputs, and one over the blocks, block sum times scale. Thread-safety: a PackedMatrix is immutable
// once made; MatMul() uses the pool, so one call at a time per pool.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/math/aligned_buffer.h"
#include "kernels/parallel/thread_pool.h"

namespace statehouse::kernels {

// Element types that weights are stored in; activations are float32.
enum class WeightType { kF32, kBF16, kInt8 };
// Element types of a source matrix in a checkpoint.
enum class SourceType { kF32, kF16, kBF16 };

const char* WeightTypeName(WeightType type);  // "f32", "bf16", "int8"

// A read-only row-major matrix in a checkpoint file. `data` need not be aligned.
struct SourceMatrix {
  const void* data = nullptr;  // [rows, cols]
  SourceType type = SourceType::kF32;
  int64_t rows = 0;  // outputs N
  int64_t cols = 0;  // inputs K
};

class PackedMatrix {
 public:
  PackedMatrix() = default;
  PackedMatrix(PackedMatrix&&) = default;
  PackedMatrix& operator=(PackedMatrix&&) = default;

  // Packs `source` for MatMul. int8 is symmetric with one float32 scale per row and block of 64 inputs, round to
  // nearest. INVALID_ARGUMENT if a size is not positive or a value is NaN or infinite; RESOURCE_EXHAUSTED if memory is
  // short.
  static absl::StatusOr<PackedMatrix> Pack(const SourceMatrix& source, WeightType type, ThreadPool& pool);

  int64_t rows() const { return rows_; }  // N
  int64_t cols() const { return cols_; }  // K
  WeightType type() const { return type_; }
  // Bytes that one pass over the weights reads, padding and scales included: the bandwidth floor's numerator.
  int64_t bytes() const { return data_.size(); }
  const std::byte* data() const { return data_.data(); }

  // Writes row `row` as the float32 values that MatMul multiplies with. out [cols]. REQUIRES: 0 <= row < rows().
  void UnpackRow(int64_t row, float* out) const;

 private:
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  WeightType type_ = WeightType::kF32;
  AlignedBuffer data_;
};

// What happens to y: overwritten, or added to (residual connection; the product and bias are summed first).
enum class MatMulOutput { kStore, kAdd };

// x [num_rows, K] contiguous, y [num_rows, N] contiguous, bias [N] or null. Never allocates: per-thread scratch is
// bounded (about 270 KB) and lives on the stack.
struct MatMulArgs {
  const PackedMatrix* weights = nullptr;
  const float* x = nullptr;
  float* y = nullptr;
  const float* bias = nullptr;
  int64_t num_rows = 0;
  MatMulOutput output = MatMulOutput::kStore;
};
void MatMul(const MatMulArgs& args, ThreadPool& pool);

// The slow twin: double accumulation on UnpackRow() values.
void MatMulRef(const MatMulArgs& args);

}  // namespace statehouse::kernels
