// A model's weights in GPU memory: matrices as float32 or bf16, several of a checkpoint's in one block where one
// product computes them together, and vectors as float32. Thread-safety: filled by one thread, then read only.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/device.h"
#include "models/config.h"
#include "models/cuda/cuda_workspace.h"
#include "models/tensor_table.h"

namespace statehouse {

// Rows [first_row, first_row + rows) of a matrix on the device, filled from the checkpoint through a pinned buffer.
class CudaMatrixSlice final : public MatrixSink {
 public:
  CudaMatrixSlice(class CudaWeightMatrix* whole, int64_t first_row) : whole_(whole), first_row_(first_row) {}
  absl::Status Accept(const kernels::SourceMatrix& source, kernels::ThreadPool& pool) override;
  bool filled() const override { return filled_; }
  int64_t bytes() const override { return bytes_; }

 private:
  class CudaWeightMatrix* whole_;
  const int64_t first_row_;
  bool filled_ = false;
  int64_t bytes_ = 0;
};

// [outputs, inputs], row-major without gaps; rows that no slice fills are zero.
class CudaWeightMatrix {
 public:
  void Shape(int64_t outputs, int64_t inputs, bool is_bf16, PinnedBuffer* staging) {
    outputs_ = outputs, inputs_ = inputs, is_bf16_ = is_bf16, staging_ = staging;
  }
  MatrixSink* Slice(int64_t first_row) { return &slices_.emplace_back(this, first_row); }
  const void* data() const { return buffer_.as<void>(); }
  int64_t outputs() const { return outputs_; }
  int64_t inputs() const { return inputs_; }
  int64_t bytes() const { return static_cast<int64_t>(buffer_.bytes()); }

 private:
  friend class CudaMatrixSlice;
  absl::Status AllocateOnce();

  int64_t outputs_ = 0, inputs_ = 0;
  bool is_bf16_ = false;
  PinnedBuffer* staging_ = nullptr;
  kernels::DeviceBuffer buffer_;  // empty until a slice is filled
  std::deque<CudaMatrixSlice> slices_;
};

// float32, from vectors of the checkpoint: parts one after another, zero where a part is absent.
class CudaWeightVector {
 public:
  // A destination for the tensor table; `size` floats at `offset`. The object must not move afterwards.
  std::vector<float>* Part(int64_t offset, int64_t size);
  // Uploads the parts that were filled into `size` floats. Nothing if no part was.
  absl::Status Upload(int64_t size);
  const float* data() const { return buffer_.as<float>(); }  // null if empty
  int64_t bytes() const { return static_cast<int64_t>(buffer_.bytes()); }

 private:
  struct PartOf {
    int64_t offset = 0, size = 0;
    std::vector<float> values;
  };
  std::deque<PartOf> parts_;
  kernels::DeviceBuffer buffer_;
};

struct CudaLayerWeights {
  CudaWeightVector input_norm, input_norm_bias, post_norm, post_norm_bias;
  CudaWeightMatrix heads;       // q, k, v and gates, padded with zero rows: [HeadsWidth(), hidden]
  CudaWeightVector heads_bias;  // [HeadsWidth()] or empty
  CudaWeightVector q_norm, k_norm;
  CudaWeightMatrix o;
  CudaWeightVector o_bias;
  CudaWeightMatrix up;  // [intermediate, hidden], or gate and up: [2 intermediate, hidden]
  CudaWeightVector up_bias;
  CudaWeightMatrix down;
  CudaWeightVector down_bias;
};

struct CudaWeights {
  explicit CudaWeights(const ModelConfig& config);
  // Names, shapes and destinations of both families. Destinations are in this object.
  void Declare(const ModelConfig& config, bool is_bf16, TensorTable* table);
  // After the table was filled: uploads vectors, frees host copies.
  absl::Status Finish(const ModelConfig& config);
  int64_t bytes() const;

  // Width of a row of q, k, v and gates, rounded up so that rows are aligned.
  static int64_t HeadsWidth(const ModelConfig& config);

  CudaWeightMatrix embedding;
  CudaWeightMatrix lm_head;  // empty: the embedding is the head
  CudaWeightVector final_norm, final_norm_bias;
  std::vector<CudaLayerWeights> layers;

 private:
  void DeclareLayer(const ModelConfig& config, int64_t layer_idx, bool is_bf16, TensorTable* table);

  PinnedBuffer staging_;
};

}  // namespace statehouse
