// The weight files of a checkpoint directory, opened and mapped: model.safetensors, or the shards that
// model.safetensors.index.json names. Thread-safety: immutable after Open().
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/safetensors.h"

namespace statehouse {

class WeightFiles {
 public:
  struct Tensor {
    std::string file;  // the path, for messages
    TensorView view;
  };

  // NOT_FOUND says which files were looked for; INVALID_ARGUMENT names the file (index or shard), the tensor and what
  // was expected. An index may name only files of its own directory, and each tensor exactly once.
  static absl::StatusOr<WeightFiles> Open(const std::filesystem::path& checkpoint_dir);

  const std::map<std::string, Tensor>& tensors() const { return tensors_; }
  // The file to name when a tensor is in none of them: model.safetensors or the index.
  const std::string& main_file() const { return main_file_; }

 private:
  absl::Status OpenShards(const std::filesystem::path& index_file);

  std::string main_file_;
  std::vector<Safetensors> files_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace statehouse
