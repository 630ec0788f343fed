#include "clients/cli/chat.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/generate.h"
#include "clients/cli/printing.h"
#include "clients/cli/response.h"

namespace statehouse::cli {
namespace {

constexpr char kHelp[] =
    "  /help           this list\n"
    "  /system [TEXT]  set the system message and start afresh; without TEXT: show it\n"
    "  /reset          forget the conversation\n"
    "  /retry          drop the last answer and ask for another\n"
    "  /stats          what this conversation took, and what it holds\n"
    "  /quit           leave (also Ctrl-D)\n"
    "  Ctrl-C stops an answer. A line that ends in \\ goes on in the next one.\n";

// Bytes per token of the key/value cache that attention of this shape would need, in bf16.
int64_t KvBytesPerToken(const v1::Model& model) {
  constexpr int64_t kKeysAndValues = 2, kBytesPerNumber = 2;
  return model.num_layers() * model.heads_kv() * model.head_dim() * kKeysAndValues * kBytesPerNumber;
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

}  // namespace

Chat::Chat(GenerateBackend& backend, Interrupts& interrupts, ChatOptions options)
    : backend_(backend), interrupts_(interrupts), options_(std::move(options)), system_(options_.system) {
  Begin();
}

void Chat::Put(std::string_view text) { Write(options_.out, text); }

void Chat::Note(std::string_view text) {
  if (!options_.terminal.is_terminal()) return;
  Put(absl::StrCat(options_.terminal.Paint(Style::kDim, options_.terminal.Harmless(text)), "\n"));
}

absl::Status Chat::Resume() {
  if (options_.session == nullptr) return absl::OkStatus();
  absl::StatusOr<ChatSession::Exchange> last = options_.session->LastExchange();
  if (!last.ok()) return last.status();
  Greet();
  if (last->position == 0) {
    Note(absl::StrCat("a new session, ", options_.session->name()));
    return absl::OkStatus();
  }
  if (!system_.empty()) {
    Note("the session has begun already: the system message is not sent; /system begins afresh");
  }
  messages_.clear_messages();
  Note(absl::StrFormat("session %s goes on: %d tokens in %d turns", options_.session->name(), last->position,
                       last->turns));
  for (const auto& [role, text] : last->messages) {
    v1::ChatMessage* message = messages_.add_messages();
    message->set_role(role);
    message->set_content(text);
    if (role == "user") Note(absl::StrCat("> ", text));
    if (role == "assistant") Note(text);
  }
  held_messages_ = messages_.messages_size();
  context_ = last->position;
  exchange_ = {.messages = 0, .position = last->begin};
  return absl::OkStatus();
}

bool Chat::Reset() {
  if (!Rewind(0)) return false;
  Begin();
  return true;
}

bool Chat::Rewind(int64_t position) {
  if (options_.session == nullptr) return true;
  const absl::Status status = options_.session->Rewind(position);
  if (!status.ok()) PrintError(options_.err, status);
  return status.ok();
}

void Chat::Begin() {
  messages_.clear_messages();
  last_usage_.Clear();
  last_timings_.Clear();
  context_ = 0;
  held_messages_ = 0;
  exchange_ = Mark();
  if (system_.empty()) return;
  v1::ChatMessage* message = messages_.add_messages();
  message->set_role("system");
  message->set_content(system_);
}

void Chat::Greet() {
  greeted_ = true;
  const v1::Model& model = options_.model;
  if (model.name().empty()) return;
  Note(absl::StrFormat("%s · %s parameters · a conversation is %s of state, however long · /help", model.name(),
                       model.parameters() >= 1'000'000
                           ? absl::StrFormat("%.1f M", static_cast<double>(model.parameters()) / 1e6)
                           : absl::StrCat(model.parameters()),
                       FormatBytes(static_cast<double>(model.state_bytes_per_sequence()))));
}

int Chat::Run(LineReader& reader) {
  if (!greeted_) Greet();
  const std::string prompt = options_.terminal.has_colour() ? "\1\033[1;36m\1> \1\033[0m\1" : "> ";
  std::string message, line;
  while (true) {
    const LineReader::Result result = reader.Read(message.empty() ? prompt : "… ", &line);
    if (result == LineReader::Result::kInterrupted) {
      message.clear();
      Note("Ctrl-D or /quit leaves");
      continue;
    }
    if (result == LineReader::Result::kEnd) break;
    const bool continues = !line.empty() && line.back() == '\\';
    if (continues) line.back() = '\n';
    message += line;
    if (continues) continue;
    if (!Trim(message).empty() && !Handle(std::exchange(message, {}))) break;
    message.clear();
  }
  return failed_ && !options_.terminal.is_terminal() ? 1 : 0;
}

bool Chat::Handle(const std::string& line) {
  if (line.front() == '/') {
    const std::string_view text = line;
    const size_t space = text.find(' ');
    return HandleCommand(text.substr(0, space), space == std::string_view::npos ? "" : Trim(text.substr(space)));
  }
  v1::ChatMessage* message = messages_.add_messages();
  message->set_role("user");
  message->set_content(line);
  Answer();
  return true;
}

bool Chat::HandleCommand(std::string_view command, std::string_view argument) {
  if (command == "/quit" || command == "/exit" || command == "/q") return false;
  if (command == "/help" || command == "/?") {
    Put(kHelp);
  } else if (command == "/reset") {
    if (Reset()) Note("forgotten");
  } else if (command == "/system") {
    if (argument.empty()) {
      Put(absl::StrCat(system_.empty() ? "(no system message)" : system_, "\n"));
    } else {
      system_ = std::string(argument);
      if (Reset()) Note("system message set; the conversation starts afresh");
    }
  } else if (command == "/retry") {
    Retry();
  } else if (command == "/stats") {
    PrintStats();
  } else {
    PrintError(options_.err, absl::InvalidArgumentError(
                                 absl::StrCat("there is no command ", std::string(command), "; /help lists them")));
  }
  return true;
}

void Chat::Retry() {
  const int count = messages_.messages_size();
  const bool has_answer = count >= 2 && messages_.messages(count - 1).role() == "assistant";
  if (has_answer && (options_.session == nullptr || exchange_.position >= 0)) {
    if (!Rewind(exchange_.position)) return;
    const v1::ChatMessage previous = messages_.messages(count - 1);
    messages_.mutable_messages()->RemoveLast();
    held_messages_ = exchange_.messages;
    exchange_ = Mark();  // of the exchange before, only its end is known
    Answer(&previous);
  } else {
    PrintError(options_.err, absl::FailedPreconditionError("there is no answer to retry"));
  }
}

void Chat::Answer(const v1::ChatMessage* previous) {
  const Mark before = exchange_;
  v1::GenerateRequest request = options_.request;
  AddInput(&request);
  request.set_return_token_ids(false);
  ResponseCollector collector;
  std::atomic<bool> interrupted{false};
  absl::Status status;
  backend_.ForgetCancel();
  {
    Interrupts::Watch watch(interrupts_, [&] {
      interrupted = true;
      backend_.Cancel();
    });
    status = backend_.Generate(request, [&](const v1::GenerateEvent& event) {
      collector.Add(event);
      if (event.has_started()) exchange_.position = event.started().session_position();
      if (event.has_delta()) Put(options_.terminal.Harmless(event.delta().text()));
      if (event.has_finished()) Put(options_.terminal.Harmless(event.finished().text()));
    });
  }
  const v1::GenerateResponse& response = collector.response();
  if (status.ok()) {
    last_usage_ = response.usage();
    last_timings_ = response.timings();
  }
  const std::string text = response.outputs().empty() ? "" : response.outputs(0).text();
  Put(status.ok() || !text.empty() ? "\n" : "");
  const std::optional<v1::SessionOutcome> outcome =
      response.has_session() ? std::optional(response.session()) : backend_.FailedOutcome();
  const int held = held_messages_;
  Settle(status, text, interrupted, previous, outcome);
  if (status.ok()) {
    context_ = last_usage_.total_tokens();
  } else if (outcome.has_value()) {
    context_ = held_messages_ > held ? outcome->position() : outcome->position_before();
  } else if (options_.session != nullptr || !text.empty()) {
    context_ = -1;
  }
  if (held_messages_ == held) {
    // Begun, and its end not told: where the session's last exchange begins is not known. Else nothing of it stays.
    const bool is_unknown = !outcome.has_value() && exchange_.position >= 0;
    exchange_ = is_unknown ? Mark() : before;
  }
  if (status.ok() && response.outputs_size() > 0 && response.outputs(0).reason() == v1::FINISH_REASON_LENGTH) {
    Note("the answer reached its most tokens; --max-tokens sets that");
  }
}

void Chat::AddInput(v1::GenerateRequest* request) {
  if (options_.session == nullptr) {
    *request->mutable_chat() = messages_;
    return;
  }
  for (int i = held_messages_; i < messages_.messages_size(); ++i) {
    *request->mutable_chat()->add_messages() = messages_.messages(i);
  }
  exchange_ = {.messages = held_messages_, .position = -1};
  v1::SessionUse* use = request->mutable_session();
  use->set_session(options_.session->name());
  use->set_create_if_missing(true);
  use->set_on_failure(v1::ON_FAILURE_KEEP_DELIVERED);  // Ctrl-C keeps what was read
}

bool Chat::KeepsCutOff(const std::string& text, const std::optional<v1::SessionOutcome>& outcome) {
  if (options_.session == nullptr) return !text.empty();
  if (!outcome.has_value()) {
    if (exchange_.position >= 0) Note("it is not known what the session keeps of this exchange");
    return false;
  }
  if (!outcome->committed()) {
    if (!text.empty()) Note("the session keeps nothing of this exchange");
    return false;
  }
  // The server keeps the question also where nothing of an answer was read. If it cannot be taken back, it is part of
  // the conversation.
  return !text.empty() || !Rewind(outcome->position_before());
}

// Keeps the conversation one that can go on: an answer that broke off stays as far as it came; without any, the one
// before it comes back, or the question is taken back, here and on the server.
void Chat::Settle(const absl::Status& status, const std::string& text, bool interrupted,
                  const v1::ChatMessage* previous, const std::optional<v1::SessionOutcome>& outcome) {
  if (status.ok() || KeepsCutOff(text, outcome)) {
    v1::ChatMessage* message = messages_.add_messages();
    message->set_role("assistant");
    message->set_content(text);
    held_messages_ = messages_.messages_size();
    cut_off_ += status.ok() ? 0 : 1;
  } else if (previous != nullptr && options_.session == nullptr) {
    *messages_.add_messages() = *previous;
  } else {
    messages_.mutable_messages()->RemoveLast();
  }
  if (interrupted) {
    Note("stopped");
  } else if (!status.ok()) {
    failed_ = true;
    PrintError(options_.err, status);
  } else {
    ++answers_;
    tokens_generated_ += last_usage_.completion_tokens();
    Note(absl::StrFormat("%s · context %d tokens · state %s, constant", SpeedLine(last_usage_, last_timings_),
                         last_usage_.total_tokens(),
                         FormatBytes(static_cast<double>(options_.model.state_bytes_per_sequence()))));
  }
}

void Chat::PrintStats() {
  const v1::Model& model = options_.model;
  std::string text = absl::StrFormat("model       %s (%s, %s weights)\n", model.name(), model.family(), model.dtype());
  absl::StrAppend(&text, absl::StrFormat("answers     %d, %d tokens%s\n", answers_, tokens_generated_,
                                         cut_off_ == 0 ? "" : absl::StrCat("; ", cut_off_, " cut off")));
  absl::StrAppend(&text, absl::StrFormat("context     %s in %d messages\n",
                                         context_ < 0 ? "tokens not known until the next answer,"
                                                      : absl::StrCat(context_, " tokens"),
                                         messages_.messages_size()));
  if (options_.session != nullptr) absl::StrAppend(&text, "session     ", options_.session->name(), "\n");
  absl::StrAppend(&text, absl::StrFormat("state       %s, constant\n",
                                         FormatBytes(static_cast<double>(model.state_bytes_per_sequence()))));
  absl::StrAppend(
      &text, absl::StrFormat("KV cache    attention of this shape would hold %s now, %s at 1 M tokens (bf16)\n",
                             FormatBytes(static_cast<double>(std::max<int64_t>(context_, 0) * KvBytesPerToken(model))),
                             FormatBytes(1e6 * static_cast<double>(KvBytesPerToken(model)))));
  if (answers_ > 0) absl::StrAppend(&text, "last answer ", SpeedLine(last_usage_, last_timings_), "\n");
  Put(options_.terminal.Harmless(text));
}

}  // namespace statehouse::cli
