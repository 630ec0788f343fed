// Named, built-in chat templates: how messages become token ids.
//
// A template writes role markers as special-token *ids* and message text as plain text, so that a user's text can never
// forge a marker. Thread-safety: immutable.
//
//   demo     <s> then, for each message, <|system|>, <|user|> or <|assistant|>, its text, <|end|>
//   chatml   <|im_start|>ROLE\nTEXT<|im_end|>\n for each message
//   plain    for models without markers: TEXT\n\n of the system, "User: TEXT\n", "Assistant: TEXT\n"; after BOS if the
//            tokenizer puts it before texts. Such an answer ends at EOS or, better, at the stop string "\nUser:".
#pragma once

#include <cstdint>
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

  std::string_view name() const;
  // Token ids at which an answer in this template ends (in addition to the model's EOS).
  std::span<const int32_t> stop_ids() const { return stop_ids_; }

  // Appends the ids of `messages`. With add_generation_prompt the next token is the assistant's first. A last message
  // of the role "assistant" without add_generation_prompt is left open, to be continued. INVALID_ARGUMENT names message
  // and field; `ids` is then as before. `tokenizer` is the one this was made with.
  absl::Status Render(std::span<const ChatMessage> messages, bool add_generation_prompt, const Tokenizer& tokenizer,
                      std::vector<int32_t>* ids) const;
  // The same for messages that follow on a conversation whose ids are `held`: its last message is closed first, unless
  // it has ended, and nothing that stands at the very beginning comes again. Without `held` it is Render().
  absl::Status RenderNext(std::span<const int32_t> held, std::span<const ChatMessage> messages,
                          bool add_generation_prompt, const Tokenizer& tokenizer, std::vector<int32_t>* ids) const;

 private:
  struct Format;
  class Writer;
  static std::span<const Format> Formats();

  absl::Status WriteBeginning(Writer* writer) const;
  absl::Status WriteClosing(std::span<const int32_t> held, std::string_view next_role, Writer* writer) const;
  absl::Status WriteMessages(std::span<const ChatMessage> messages, bool add_generation_prompt, Writer* writer) const;

  const Format* format_ = nullptr;
  std::vector<int32_t> marker_ids_;  // of format_->markers
  std::vector<int32_t> stop_ids_;
};

}  // namespace statehouse
