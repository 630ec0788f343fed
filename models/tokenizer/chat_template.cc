#include "models/tokenizer/chat_template.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/json.h"  // QuotedName
#include "models/tokenizer/tokenizer_settings.h"

namespace statehouse {
namespace {

constexpr std::array<std::string_view, 3> kRoles = {"system", "user", "assistant"};
constexpr size_t kAssistant = 2;

std::string Joined(std::span<const std::string_view> names) {
  std::string out;
  for (const std::string_view name : names) absl::StrAppend(&out, out.empty() ? "" : ", ", std::string(name));
  return out;
}

}  // namespace

// What stands around messages: special tokens, by their index in `markers`, and plain text. -1: no token.
struct ChatTemplate::Format {
  struct Role {
    int marker = -1;           // before the message
    std::string_view opening;  // text between the marker and the message
    std::string_view prompt;   // the opening, where the model is to go on from it
    std::string_view closing;  // text that ends the message, after the end marker
  };

  std::string_view name;
  std::span<const std::string_view> markers;
  int begin_marker = -1;  // before everything
  int end_marker = -1;    // after each message; an answer stops at it
  std::array<Role, 3> roles;
  bool begins_with_bos = false;
};

std::span<const ChatTemplate::Format> ChatTemplate::Formats() {
  static constexpr std::string_view kDemoMarkers[] = {"<s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"};
  static constexpr std::string_view kChatMlMarkers[] = {"<|im_start|>", "<|im_end|>"};
  static const Format kFormats[] = {
      {.name = "demo",
       .markers = kDemoMarkers,
       .begin_marker = 0,
       .end_marker = 4,
       .roles = {{{.marker = 1, .opening = "", .prompt = "", .closing = ""},
                  {.marker = 2, .opening = "", .prompt = "", .closing = ""},
                  {.marker = 3, .opening = "", .prompt = "", .closing = ""}}}},
      {.name = "chatml",
       .markers = kChatMlMarkers,
       .begin_marker = -1,
       .end_marker = 1,
       .roles = {{{.marker = 0, .opening = "system\n", .prompt = "", .closing = "\n"},
                  {.marker = 0, .opening = "user\n", .prompt = "", .closing = "\n"},
                  {.marker = 0, .opening = "assistant\n", .prompt = "assistant\n", .closing = "\n"}}}},
      {.name = "plain",
       .markers = {},
       .begin_marker = -1,
       .end_marker = -1,
       .roles = {{{.marker = -1, .opening = "", .prompt = "", .closing = "\n\n"},
                  {.marker = -1, .opening = "User: ", .prompt = "", .closing = "\n"},
                  // The space belongs to the first word of an answer.
                  {.marker = -1, .opening = "Assistant: ", .prompt = "Assistant:", .closing = "\n"}}},
       .begins_with_bos = true},
  };
  return kFormats;
}

std::span<const std::string_view> ChatTemplate::Names() {
  static constexpr std::string_view kNames[] = {"demo", "chatml", "plain"};
  return kNames;
}

std::string_view ChatTemplate::name() const { return format_->name; }

absl::StatusOr<ChatTemplate> ChatTemplate::ByName(std::string_view name, const Tokenizer& tokenizer) {
  const std::span<const Format> formats = Formats();
  const auto format = std::find_if(formats.begin(), formats.end(), [&](const Format& f) { return f.name == name; });
  if (format == formats.end()) {
    return absl::NotFoundError(
        absl::StrCat("chat template ", QuotedName(name), " does not exist; expected one of ", Joined(Names())));
  }
  ChatTemplate chat_template;
  chat_template.format_ = &*format;
  for (const std::string_view marker : format->markers) {
    const std::optional<int32_t> id = tokenizer.FindSpecial(marker);
    if (!id.has_value()) {
      return absl::FailedPreconditionError(absl::StrCat("chat template \"", std::string(name),
                                                        "\" needs the special token ", QuotedName(marker),
                                                        ", which the tokenizer does not have"));
    }
    chat_template.marker_ids_.push_back(*id);
  }
  if (format->end_marker >= 0)
    chat_template.stop_ids_ = {chat_template.marker_ids_[static_cast<size_t>(format->end_marker)]};
  return chat_template;
}

absl::StatusOr<ChatTemplate> ChatTemplate::ForCheckpoint(const std::filesystem::path& checkpoint_dir,
                                                         const Tokenizer& tokenizer) {
  absl::StatusOr<TokenizerSettings> settings = ReadTokenizerSettings(checkpoint_dir);
  if (!settings.ok()) return settings.status();
  if (!settings->statehouse_chat_template.empty()) return ByName(settings->statehouse_chat_template, tokenizer);
  const std::string& jinja = settings->chat_template;
  if (jinja.find("<|im_start|>") != jinja.npos && jinja.find("<|im_end|>") != jinja.npos)
    return ByName("chatml", tokenizer);
  return absl::NotFoundError(absl::StrCat(
      checkpoint_dir.string(),
      ": the checkpoint names no chat template that is known; choose one with --chat-template: ", Joined(Names())));
}

absl::Status ChatTemplate::Render(std::span<const ChatMessage> messages, bool add_generation_prompt,
                                  const Tokenizer& tokenizer, std::vector<int32_t>* ids) const {
  if (messages.empty()) return absl::InvalidArgumentError("messages: empty; expected at least one");
  std::vector<int32_t> rendered;
  if (format_->begin_marker >= 0) rendered.push_back(marker_ids_[static_cast<size_t>(format_->begin_marker)]);
  if (format_->begins_with_bos) {
    std::vector<int32_t> around;
    if (absl::Status status = tokenizer.Encode("", {.add_special_tokens = true}, &around); !status.ok()) return status;
    if (!around.empty() && tokenizer.bos_id() == around.front()) rendered.push_back(around.front());
  }
  // Text is encoded in stretches as long as possible, from marker to marker, as if it had been one text with markers in
  // it.
  std::string text;
  const auto flush = [&](const std::string& where) -> absl::Status {
    constexpr EncodeOptions kPlain = {.add_special_tokens = false, .parse_special_tokens = false};
    absl::Status status = text.empty() ? absl::OkStatus() : tokenizer.Encode(text, kPlain, &rendered);
    text.clear();
    return status.ok() ? status : absl::Status(status.code(), absl::StrCat(where, ": ", std::string(status.message())));
  };
  const auto marker = [&](int index, const std::string& where) -> absl::Status {
    if (index < 0) return absl::OkStatus();
    absl::Status status = flush(where);
    rendered.push_back(marker_ids_[static_cast<size_t>(index)]);
    return status;
  };
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    const size_t role = static_cast<size_t>(std::find(kRoles.begin(), kRoles.end(), message.role) - kRoles.begin());
    if (role == kRoles.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("messages[", i, "].role: ", QuotedName(message.role), "; expected one of ", Joined(kRoles)));
    }
    const Format::Role& format = format_->roles[role];
    const std::string where = absl::StrCat("messages[", i, "].content");
    if (absl::Status status = marker(format.marker, where); !status.ok()) return status;
    absl::StrAppend(&text, std::string(format.opening), message.content);
    const bool is_open = i + 1 == messages.size() && role == kAssistant && !add_generation_prompt;
    if (is_open) {
      if (absl::Status status = flush(where); !status.ok()) return status;
      continue;
    }
    if (absl::Status status = marker(format_->end_marker, where); !status.ok()) return status;
    text += format.closing;
  }
  if (add_generation_prompt) {
    if (absl::Status status = marker(format_->roles[kAssistant].marker, "messages"); !status.ok()) return status;
    text += format_->roles[kAssistant].prompt;
  }
  if (absl::Status status = flush("messages"); !status.ok()) return status;
  ids->insert(ids->end(), rendered.begin(), rendered.end());
  return absl::OkStatus();
}

}  // namespace statehouse
