// Reads one .safetensors file, memory-mapped: the Hugging Face safetensors format (8-byte little-endian header length,
// JSON header, data). Hostile files are refused: header length, JSON, names, dtypes, shapes, sizes, overlaps and gaps
// are all checked. Thread-safety: immutable after Open().
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace statehouse {

struct TensorView {
  std::string dtype;  // "F32", "F16", "BF16", and others that callers may refuse
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;  // not aligned
  int64_t num_bytes = 0;
  int64_t num_elements() const;
};

class Safetensors {
 public:
  // INVALID_ARGUMENT names the file, the tensor and what was expected; NOT_FOUND if the file is missing.
  static absl::StatusOr<Safetensors> Open(const std::filesystem::path& file);
  Safetensors(Safetensors&&) noexcept;
  Safetensors& operator=(Safetensors&&) noexcept;
  ~Safetensors();

  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  Safetensors();
  class Mapping;
  std::unique_ptr<Mapping> mapping_;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace statehouse
