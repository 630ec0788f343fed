#include "server/convert_prompt.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "server/convert_request.h"
#include "server/field_checks.h"

namespace statehouse {
namespace {

absl::Status NeedTokenizer(std::string_view field, const ServedModel& model) {
  if (model.tokenizer != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(std::string(field), ": this model has no tokenizer (",
                                                    model.why_no_tokenizer, "); send token_ids instead"));
}

int64_t TextBytes(const v1::GenerateRequest& request) {
  int64_t bytes = static_cast<int64_t>(request.text().size() + request.suffix().size());
  for (const v1::ChatMessage& message : request.chat().messages()) {
    bytes += static_cast<int64_t>(message.content().size());
  }
  return bytes;
}

// Before a text is encoded, which takes many times its memory, and before ids are copied.
absl::Status CheckSize(const v1::GenerateRequest& request, const ServedModel& model) {
  const int64_t num_ids = request.token_ids().ids_size();
  if (model.max_prompt_tokens > 0 && num_ids > model.max_prompt_tokens) {
    return InvalidField("prompt", absl::StrCat(num_ids, " tokens"),
                        absl::StrCat("at most ", model.max_prompt_tokens, " tokens, the longest prompt taken here"));
  }
  const int64_t bytes = TextBytes(request);
  if (model.max_prompt_bytes == 0 || bytes <= model.max_prompt_bytes) return absl::OkStatus();
  return InvalidField("prompt", absl::StrCat("a text of ", bytes, " bytes"),
                      absl::StrCat("at most ", model.max_prompt_tokens, " tokens, which have no more than ",
                                   model.max_prompt_bytes, " bytes"));
}

// An INVALID_ARGUMENT "<place>: <what>" of a template, said of the field that `field_of` gives for its place.
template <typename FieldOfPlace>
absl::Status AtFieldOfPlace(const absl::Status& status, const FieldOfPlace& field_of) {
  const std::string message(status.message());
  const size_t colon = message.find(": ");
  if (!absl::IsInvalidArgument(status) || colon == std::string::npos) return status;
  return AtField(field_of(message.substr(0, colon)), absl::InvalidArgumentError(message.substr(colon + 2)));
}

absl::Status ConvertGap(const std::string& prefix, const std::string& suffix, const ServedModel& model,
                        std::vector<int32_t>* ids) {
  if (absl::Status status = NeedTokenizer("suffix", model); !status.ok()) return status;
  if (!model.fim.has_value()) {
    return absl::FailedPreconditionError(absl::StrCat("suffix: this model cannot fill in the middle (",
                                                      model.why_no_fim, "); send the text before the gap alone"));
  }
  if (absl::Status status = CheckUtf8("text", prefix); !status.ok()) return status;
  if (absl::Status status = CheckUtf8("suffix", suffix); !status.ok()) return status;
  // The template calls the text before the gap "prompt".
  return AtFieldOfPlace(model.fim->Render(prefix, suffix, *model.tokenizer, ids),
                        [](const std::string& place) { return std::string(place == "suffix" ? "suffix" : "text"); });
}

}  // namespace

absl::Status ConvertText(const std::string& text, bool add_special_tokens, bool parse_special_tokens,
                         const ServedModel& model, std::vector<int32_t>* ids) {
  if (absl::Status status = NeedTokenizer("text", model); !status.ok()) return status;
  if (absl::Status status = CheckUtf8("text", text); !status.ok()) return status;
  EncodeOptions options;
  options.add_special_tokens = add_special_tokens;
  options.parse_special_tokens = parse_special_tokens;
  return AtField("text", model.tokenizer->Encode(text, options, ids));
}

absl::Status ConvertChat(const v1::Chat& chat, const ServedModel& model, std::span<const int32_t> held,
                         std::vector<int32_t>* ids) {
  if (absl::Status status = NeedTokenizer("chat", model); !status.ok()) return status;
  if (!model.chat_template.has_value()) {
    return absl::FailedPreconditionError(absl::StrCat("chat: this model has no chat template (",
                                                      model.why_no_chat_template,
                                                      "); start the server with --chat-template, or send text"));
  }
  if (chat.messages().empty()) return InvalidField("chat.messages", "an empty list", "at least one message");
  std::vector<ChatMessage> messages;
  for (int i = 0; i < chat.messages_size(); ++i) {
    const v1::ChatMessage& message = chat.messages(i);
    const std::string field = absl::StrCat("chat.messages[", i, "].");
    if (message.role() != "system" && message.role() != "user" && message.role() != "assistant") {
      return InvalidField(field + "role", absl::StrCat("\"", message.role().substr(0, 64), "\""),
                          "\"system\", \"user\" or \"assistant\"");
    }
    if (absl::Status status = CheckUtf8(field + "content", message.content()); !status.ok()) return status;
    messages.push_back({message.role(), message.content()});
  }
  const bool continues_answer = messages.back().role == "assistant";
  return AtFieldOfPlace(model.chat_template->RenderNext(held, messages, /*add_generation_prompt=*/!continues_answer,
                                                        *model.tokenizer, ids),
                        [](const std::string& place) { return absl::StrCat("chat.", place); });
}

absl::Status ConvertPrompt(const v1::GenerateRequest& request, const ServedModel& model, std::vector<int32_t>* ids) {
  if (request.has_suffix() && request.input_case() != v1::GenerateRequest::kText) {
    return InvalidField("suffix", "a suffix without text", "`text` before the gap beside `suffix` after it");
  }
  if (request.has_suffix()) {
    if (absl::Status status = CheckSize(request, model); !status.ok()) return status;
    return ConvertGap(request.text(), request.suffix(), model, ids);
  }
  return ConvertContinuation(request, model, /*held=*/{}, ids);
}

absl::Status ConvertContinuation(const v1::GenerateRequest& request, const ServedModel& model,
                                 std::span<const int32_t> held, std::vector<int32_t>* ids) {
  if (absl::Status status = CheckSize(request, model); !status.ok()) return status;
  switch (request.input_case()) {
    case v1::GenerateRequest::kText: {
      const bool add_special_tokens = request.has_add_special_tokens() ? request.add_special_tokens() : held.empty();
      if (absl::Status status =
              ConvertText(request.text(), add_special_tokens, request.parse_special_tokens(), model, ids);
          !status.ok()) {
        return status;
      }
      if (ids->empty()) return InvalidField("text", "a text of no tokens", "at least one token");
      return absl::OkStatus();
    }
    case v1::GenerateRequest::kTokenIds:
      if (request.token_ids().ids().empty())
        return InvalidField("token_ids.ids", "an empty list", "at least one token id");
      if (absl::Status status = CheckTokenIds("token_ids.ids", request.token_ids().ids(), model.vocab_size);
          !status.ok()) {
        return status;
      }
      ids->assign(request.token_ids().ids().begin(), request.token_ids().ids().end());
      return absl::OkStatus();
    case v1::GenerateRequest::kChat:
      return ConvertChat(request.chat(), model, held, ids);
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  return InvalidField("input", "nothing", "exactly one of text, token_ids and chat");
}

}  // namespace statehouse
