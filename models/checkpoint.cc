#include "models/checkpoint.h"

#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace statehouse {
namespace {

std::string DirectoryName(const std::filesystem::path& directory) {
  std::error_code error;
  const std::filesystem::path full = std::filesystem::weakly_canonical(directory, error);
  const std::string name = (error ? directory : full).filename().string();
  return name.empty() ? "model" : name;
}

absl::Status LoadTokenizer(const std::filesystem::path& directory, LoadedCheckpoint* loaded) {
  auto tokenizer = Tokenizer::Load(directory);
  if (absl::IsNotFound(tokenizer.status())) {
    loaded->why_no_tokenizer = std::string(tokenizer.status().message());
    return absl::OkStatus();
  }
  if (!tokenizer.ok()) return tokenizer.status();
  loaded->tokenizer = *std::move(tokenizer);
  return absl::OkStatus();
}

absl::Status ReadConfigs(const std::filesystem::path& directory, LoadedCheckpoint* loaded) {
  TokenIdSource ids;
  if (loaded->tokenizer != nullptr) {
    ids.resolve = [&](std::string_view spelling) -> std::optional<int64_t> {
      return loaded->tokenizer->FindSpecial(spelling);
    };
    ids.tokenizer_eos = loaded->tokenizer->eos_id();
  }
  auto config = ReadConfig(directory, ids);
  if (!config.ok()) return config.status();
  loaded->config = config->model;
  loaded->generation = config->generation;
  loaded->warnings = config->model.warnings;
  if (loaded->tokenizer != nullptr && loaded->tokenizer->size() > loaded->config.vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat(directory.string(), ": the tokenizer has ",
                                                   loaded->tokenizer->size(), " tokens; expected at most ",
                                                   loaded->config.vocab_size, ", the vocab_size of config.json"));
  }
  return absl::OkStatus();
}

absl::Status ChooseChatTemplate(const std::filesystem::path& directory, const std::string& name,
                                LoadedCheckpoint* loaded) {
  if (loaded->tokenizer == nullptr) {
    if (!name.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("--chat-template ", name, ": needs a tokenizer, and ", directory.string(), " has none"));
    }
    loaded->why_no_chat_template = "the checkpoint has no tokenizer; send token ids";
    return absl::OkStatus();
  }
  auto chosen = name.empty() ? ChatTemplate::ForCheckpoint(directory, *loaded->tokenizer)
                             : ChatTemplate::ByName(name, *loaded->tokenizer);
  // A checkpoint that names none, or one that its own tokenizer cannot speak, still completes text.
  if (name.empty() && (absl::IsNotFound(chosen.status()) || absl::IsFailedPrecondition(chosen.status()))) {
    loaded->why_no_chat_template = std::string(chosen.status().message());
    return absl::OkStatus();
  }
  if (!chosen.ok()) return chosen.status();
  loaded->chat_template = *std::move(chosen);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LoadedCheckpoint> LoadCheckpoint(const std::filesystem::path& checkpoint_dir,
                                                const CheckpointOptions& options, kernels::ThreadPool* pool) {
  LoadedCheckpoint loaded;
  loaded.name = DirectoryName(checkpoint_dir);
  if (absl::Status status = LoadTokenizer(checkpoint_dir, &loaded); !status.ok()) return status;
  if (absl::Status status = ReadConfigs(checkpoint_dir, &loaded); !status.ok()) return status;
  if (absl::Status status = ChooseChatTemplate(checkpoint_dir, options.chat_template, &loaded); !status.ok())
    return status;
  auto model = LoadModelWithConfig(checkpoint_dir, loaded.config, options.load, pool);
  if (!model.ok()) return model.status();
  loaded.model = *std::move(model);
  return loaded;
}

}  // namespace statehouse
