// The tensors that a forward pass needs: their names in the checkpoint, their shapes, and where each of them goes.
// A family fills the table once; loading, checking, dummy weights and sizes all follow from it.
// Thread-safety: filled by one thread, then read only. Destinations must outlive the table.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "kernels/matmul/matmul.h"
#include "kernels/parallel/thread_pool.h"

namespace statehouse {

// Takes a matrix to where the model computes, if that is not the host.
class MatrixSink {
 public:
  virtual ~MatrixSink() = default;
  // INVALID_ARGUMENT if a value is NaN or infinite, or becomes so in the type it is held in. `source` is only valid
  // during the call.
  virtual absl::Status Accept(const kernels::SourceMatrix& source, kernels::ThreadPool& pool) = 0;
  virtual bool filled() const = 0;
  virtual int64_t bytes() const = 0;
};

// What --dtype int8 makes of a matrix.
enum class Int8Mode {
  kQuantise,
  kBF16,      // embeddings: about half of int8's error, measured on the golden models, came from theirs
  kAsStored,  // gates: their error compounds over everything that is remembered through them, and they are tiny
};

struct TensorSpec {
  std::string name;                         // "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;               // [rows, cols] or [size]
  kernels::PackedMatrix* matrix = nullptr;  // exactly one of the three destinations is set
  MatrixSink* sink = nullptr;
  std::vector<float>* vector = nullptr;  // norms and biases stay float32
  bool optional = false;                 // may be missing: the destination then stays empty
  Int8Mode int8_mode = Int8Mode::kQuantise;
  float dummy = 0;  // matrix: standard deviation of dummy weights · sqrt(cols); vector: the value

  int64_t num_elements() const { return shape.size() == 2 ? shape[0] * shape[1] : shape[0]; }
};

// A tensor that a checkpoint may hold although the model has no use for it.
struct UnusedTensor {
  std::string name;
  std::string why;  // a clause: "tie_word_embeddings is true"
};

class TensorTable {
 public:
  TensorSpec& Matrix(std::string name, int64_t rows, int64_t cols, kernels::PackedMatrix* out, float dummy_gain = 1) {
    specs_.push_back({.name = std::move(name), .shape = {rows, cols}, .matrix = out, .dummy = dummy_gain});
    return specs_.back();
  }
  TensorSpec& Sink(std::string name, int64_t rows, int64_t cols, MatrixSink* sink, float dummy_gain = 1) {
    specs_.push_back({.name = std::move(name), .shape = {rows, cols}, .sink = sink, .dummy = dummy_gain});
    return specs_.back();
  }
  TensorSpec& Vector(std::string name, int64_t size, std::vector<float>* out, float dummy_value = 0) {
    specs_.push_back({.name = std::move(name), .shape = {size}, .vector = out, .dummy = dummy_value});
    return specs_.back();
  }
  void Unused(std::string name, std::string why) { unused_.push_back({std::move(name), std::move(why)}); }
  const std::vector<TensorSpec>& specs() const { return specs_; }
  const std::vector<UnusedTensor>& unused() const { return unused_; }

 private:
  std::vector<TensorSpec> specs_;
  std::vector<UnusedTensor> unused_;
};

}  // namespace statehouse
