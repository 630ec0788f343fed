// `statehouse chat`: a conversation in a terminal or a pipe. The client holds the messages and sends all of them each
// turn; with a session the server holds them, and only what is new is sent.
//
// Thread-safety: one thread; Ctrl-C arrives through Interrupts.
#pragma once

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

#include "clients/cli/chat_session.h"
#include "clients/cli/generate_backend.h"
#include "clients/cli/interrupts.h"
#include "clients/cli/line_reader.h"
#include "clients/cli/terminal.h"
#include "statehouse/v1/generation.pb.h"
#include "statehouse/v1/models.pb.h"

namespace statehouse::cli {

struct ChatOptions {
  v1::GenerateRequest request;     // sampling, stop and model of every turn; its input is replaced
  std::string system;              // system message; empty: none
  v1::Model model;                 // what is served, for the figures
  ChatSession* session = nullptr;  // what the server holds of the conversation; null: nothing
  Terminal terminal;               // of `out`; figures and greetings appear on a terminal only
  std::FILE* out = stdout;
  std::FILE* err = stderr;
};

class Chat {
 public:
  // `backend` and `interrupts` must outlive this object.
  Chat(GenerateBackend& backend, Interrupts& interrupts, ChatOptions options);

  // With a session: goes on where it was, and shows the last exchange. Before anything else, once.
  absl::Status Resume();
  // Reads and answers lines until the reader ends or the user quits. Returns the program's exit status: in a pipe 1 if
  // an answer failed, else 0.
  int Run(LineReader& reader);
  // Answers one message or obeys one slash command; false: leave.
  bool Handle(const std::string& line);

  // The messages so far, the system message first if there is one; of a session those since its last exchange here.
  const v1::Chat& messages() const { return messages_; }

 private:
  bool HandleCommand(std::string_view command, std::string_view argument);
  void Greet();
  // `previous` is the answer that a new one replaces; null: there is none.
  void Answer(const v1::ChatMessage* previous = nullptr);
  // `outcome`: where a session's turn left it, if that is known.
  void Settle(const absl::Status& status, const std::string& text, bool interrupted, const v1::ChatMessage* previous,
              const std::optional<v1::SessionOutcome>& outcome);
  // True if the turn that failed stays in the session as far as `text`; takes back what else of it is there.
  bool KeepsCutOff(const std::string& text, const std::optional<v1::SessionOutcome>& outcome);
  // Starts an empty conversation here.
  void Begin();
  // Forgets the conversation; false (said on `err`) if the server does not.
  bool Reset();
  // The messages that the next answer is to, in the session or at all.
  void AddInput(v1::GenerateRequest* request);
  // The server forgets what lies beyond `position`; false, and said on `err`, if it does not.
  bool Rewind(int64_t position);
  void PrintStats();
  void Retry();
  // A line on `out`, dim, on a terminal only.
  void Note(std::string_view text);
  void Put(std::string_view text);

  GenerateBackend& backend_;
  Interrupts& interrupts_;
  const ChatOptions options_;
  std::string system_;
  v1::Chat messages_;
  v1::Usage last_usage_;
  v1::Timings last_timings_;
  int64_t context_ = 0;  // tokens that the conversation holds; -1: not known, since the last answer was cut off
  int64_t answers_ = 0;
  int64_t cut_off_ = 0;  // answers that stay as far as they came
  int64_t tokens_generated_ = 0;
  // Where an exchange begins: messages before it, and the session's position; -1: not known.
  struct Mark {
    int messages = 0;
    int64_t position = -1;
  };
  // Of a session only: messages that the server holds, and the last exchange of them.
  int held_messages_ = 0;
  Mark exchange_;
  bool failed_ = false;
  bool greeted_ = false;
};

}  // namespace statehouse::cli
