// Named, built-in chat templates: how messages become token ids.
//
// A template writes role markers as special-token *ids* and message text as plain text, so that a user's text can never
// forge a marker. Names: "demo", "chatml", "plain". Thread-safety: immutable.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/tokenizer/tokenizer.h"

namespace statehouse {

struct ChatMessage {
  std::string role;     // "system", "user" or "assistant"
  std::string content;  // UTF-8
};

class ChatTemplate {
 public:
  // The names that ByName() takes, in the order to print them.
  static std::span<const std::string_view> Names();
  // NOT_FOUND lists the names; FAILED_PRECONDITION names a special token that the template needs and the tokenizer
  // lacks.
  static absl::StatusOr<ChatTemplate> ByName(std::string_view name, const Tokenizer& tokenizer);
  // The template that the checkpoint itself names (tokenizer_config.json: "statehouse_chat_template", or a
  // "chat_template" that is recognisably ChatML). NOT_FOUND says that it names none and how to choose one
  // (--chat-template).
  static absl::StatusOr<ChatTemplate> ForCheckpoint(const std::filesystem::path& checkpoint_dir,
                                                    const Tokenizer& tokenizer);

  std::string_view name() const { return name_; }
  // Token ids at which an answer in this template ends (in addition to the model's EOS).
  std::span<const int32_t> stop_ids() const { return stop_ids_; }

  // Appends the ids of `messages`. With add_generation_prompt the next token is the assistant's first. A last message
  // of the role "assistant" without add_generation_prompt is left open, to be continued. INVALID_ARGUMENT names message
  // and role.
  absl::Status Render(std::span<const ChatMessage> messages, bool add_generation_prompt, const Tokenizer& tokenizer,
                      std::vector<int32_t>* ids) const;

 private:
  struct Format;
  std::string_view name_;
  const Format* format_ = nullptr;
  std::vector<int32_t> marker_ids_;
  std::vector<int32_t> stop_ids_;
};

}  // namespace statehouse
