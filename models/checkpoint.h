// A checkpoint directory, loaded whole: model, tokenizer, chat template and sampling defaults. What `serve`, `generate
// --offline`, `bench` and `info` start from. Thread-safety: plain data; see each part.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/parallel/thread_pool.h"
#include "models/config.h"
#include "models/model.h"
#include "models/tokenizer/chat_template.h"
#include "models/tokenizer/tokenizer.h"

namespace statehouse {

struct CheckpointOptions {
  LoadOptions load;
  std::string chat_template;  // --chat-template: a name of ChatTemplate::Names(), or empty: what the checkpoint says
};

struct LoadedCheckpoint {
  std::string name;  // the directory's own name
  ModelConfig config;
  GenerationDefaults generation;
  std::unique_ptr<Model> model;
  std::unique_ptr<Tokenizer> tokenizer;  // null: the checkpoint has none, and only token ids go in and out
  std::string why_no_tokenizer;          // set if null
  std::optional<ChatTemplate> chat_template;
  std::string why_no_chat_template;   // set if empty: says how to choose one
  std::vector<std::string> warnings;  // of config and generation config, to be logged
};

// Reads config and tokenizer first, weights last, so that cheap mistakes show at once. Errors as ReadConfig(),
// LoadModel(), Tokenizer::Load() and ChatTemplate::ByName(); INVALID_ARGUMENT if the tokenizer has more tokens than the
// model's vocabulary. `pool` must outlive the result.
absl::StatusOr<LoadedCheckpoint> LoadCheckpoint(const std::filesystem::path& checkpoint_dir,
                                                const CheckpointOptions& options, kernels::ThreadPool* pool);

}  // namespace statehouse
