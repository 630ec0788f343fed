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

// Ids as they come: markers, and between them text in stretches as long as possible, encoded as if it had been one text
// with markers in it.
class ChatTemplate::Writer {
 public:
  Writer(const ChatTemplate* chat_template, const Tokenizer* tokenizer)
      : template_(*chat_template), tokenizer_(*tokenizer) {}

  const Tokenizer& tokenizer() const { return tokenizer_; }
  // The beginning of the first message's opening that is held already.
  std::string_view held_opening() const { return held_opening_; }
  void set_held_opening(std::string_view opening) { held_opening_ = opening; }
  void Text(std::string_view text) { text_ += text; }
  void Id(int32_t id) { ids_.push_back(id); }
  // `where` names the message in errors. -1: no marker.
  absl::Status Marker(int index, const std::string& where) {
    if (index < 0) return absl::OkStatus();
    absl::Status status = Flush(where);
    ids_.push_back(template_.marker_ids_[static_cast<size_t>(index)]);
    return status;
  }
  absl::Status Flush(const std::string& where) {
    constexpr EncodeOptions kPlain = {.add_special_tokens = false, .parse_special_tokens = false};
    absl::Status status = text_.empty() ? absl::OkStatus() : tokenizer_.Encode(text_, kPlain, &ids_);
    text_.clear();
    return status.ok() ? status : absl::Status(status.code(), absl::StrCat(where, ": ", std::string(status.message())));
  }
  const std::vector<int32_t>& ids() const { return ids_; }

 private:
  const ChatTemplate& template_;
  const Tokenizer& tokenizer_;
  std::string_view held_opening_;
  std::string text_;
  std::vector<int32_t> ids_;
};

absl::Status ChatTemplate::Render(std::span<const ChatMessage> messages, bool add_generation_prompt,
                                  const Tokenizer& tokenizer, std::vector<int32_t>* ids) const {
  return RenderNext({}, messages, add_generation_prompt, tokenizer, ids);
}

absl::Status ChatTemplate::RenderNext(std::span<const int32_t> held, std::span<const ChatMessage> messages,
                                      bool add_generation_prompt, const Tokenizer& tokenizer,
                                      std::vector<int32_t>* ids) const {
  if (messages.empty()) return absl::InvalidArgumentError("messages: empty; expected at least one");
  Writer writer(this, &tokenizer);
  absl::Status status = held.empty() ? WriteBeginning(&writer) : WriteClosing(held, messages.front().role, &writer);
  if (status.ok()) status = WriteMessages(messages, add_generation_prompt, &writer);
  if (!status.ok()) return status;
  ids->insert(ids->end(), writer.ids().begin(), writer.ids().end());
  return absl::OkStatus();
}

absl::Status ChatTemplate::WriteBeginning(Writer* writer) const {
  if (absl::Status status = writer->Marker(format_->begin_marker, "messages"); !status.ok()) return status;
  if (!format_->begins_with_bos) return absl::OkStatus();
  std::vector<int32_t> around;
  if (absl::Status status = writer->tokenizer().Encode("", {.add_special_tokens = true}, &around); !status.ok()) {
    return status;
  }
  if (!around.empty() && writer->tokenizer().bos_id() == around.front()) writer->Id(around.front());
  return absl::OkStatus();
}

absl::Status ChatTemplate::WriteClosing(std::span<const int32_t> held, std::string_view next_role,
                                        Writer* writer) const {
  // No closing text or opening is longer than that many tokens.
  constexpr size_t kTail = 32;
  const std::span<const int32_t> tail = held.last(std::min(kTail, held.size()));
  const std::string_view closing = format_->roles[kAssistant].closing;
  if (format_->end_marker >= 0) {
    const int32_t end = marker_ids_[static_cast<size_t>(format_->end_marker)];
    const auto last_end = std::find(tail.rbegin(), tail.rend(), end);
    const bool has_end = last_end != tail.rend();
    const size_t after = static_cast<size_t>(last_end - tail.rbegin());
    if (has_end && writer->tokenizer().Decode(tail.last(after), /*show_special=*/true) == closing) {
      return absl::OkStatus();
    }
    if (!has_end || after > 0) {  // cut off, or ended in another way
      if (absl::Status status = writer->Marker(format_->end_marker, "messages"); !status.ok()) return status;
    }
    writer->Text(closing);
    return absl::OkStatus();
  }
  // Without markers an answer ends at a stop string, which is then held: usually the beginning of the next message.
  const std::string text = writer->tokenizer().Decode(tail, /*show_special=*/false);
  const auto role = std::find(kRoles.begin(), kRoles.end(), next_role);
  std::string_view opening =
      role == kRoles.end() ? std::string_view() : format_->roles[static_cast<size_t>(role - kRoles.begin())].opening;
  while (!opening.empty() && opening.back() == ' ') opening.remove_suffix(1);
  if (!opening.empty() && text.ends_with("\n" + std::string(opening))) {
    writer->set_held_opening(opening);
  } else if (!text.ends_with('\n')) {
    writer->Text(closing);
  }
  return absl::OkStatus();
}

absl::Status ChatTemplate::WriteMessages(std::span<const ChatMessage> messages, bool add_generation_prompt,
                                         Writer* writer) const {
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    const size_t role = static_cast<size_t>(std::find(kRoles.begin(), kRoles.end(), message.role) - kRoles.begin());
    if (role == kRoles.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("messages[", i, "].role: ", QuotedName(message.role), "; expected one of ", Joined(kRoles)));
    }
    const Format::Role& format = format_->roles[role];
    const std::string where = absl::StrCat("messages[", i, "].content");
    if (absl::Status status = writer->Marker(format.marker, where); !status.ok()) return status;
    writer->Text(format.opening.substr(i == 0 ? writer->held_opening().size() : 0));
    writer->Text(message.content);
    const bool is_open = i + 1 == messages.size() && role == kAssistant && !add_generation_prompt;
    if (is_open) {
      if (absl::Status status = writer->Flush(where); !status.ok()) return status;
      continue;
    }
    if (absl::Status status = writer->Marker(format_->end_marker, where); !status.ok()) return status;
    writer->Text(format.closing);
  }
  if (add_generation_prompt) {
    if (absl::Status status = writer->Marker(format_->roles[kAssistant].marker, "messages"); !status.ok()) {
      return status;
    }
    writer->Text(format_->roles[kAssistant].prompt);
  }
  return writer->Flush("messages");
}

}  // namespace statehouse
