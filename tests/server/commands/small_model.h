// A model of two small layers with random weights, for tests of benchmarks: chunks of 16, switch-over at 64.
#pragma once

#include <filesystem>
#include <fstream>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/parallel/thread_pool.h"
#include "models/model.h"

namespace statehouse::testing {

// Writes its config into `dir`, which is made, and loads it.
inline absl::StatusOr<std::unique_ptr<Model>> LoadSmallModel(const std::filesystem::path& dir,
                                                             kernels::ThreadPool* pool) {
  std::filesystem::create_directories(dir);
  std::ofstream(dir / "config.json")
      << R"({"model_type": "powercoder", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
      "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 100, "norm_epsilon": 1e-5, "rope_theta": 10000,
      "hidden_act": "gelu_pytorch_tanh", "use_bias": true, "max_position_embeddings": 1024, "tie_word_embeddings": true})";
  LoadOptions options;
  options.dummy = true;
  options.chunk = 16;
  options.switch_over = 64;
  return LoadModel(dir, options, pool);
}

}  // namespace statehouse::testing
