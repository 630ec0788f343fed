// The conversation's logic, over gRPC against a server without a model.
#include "clients/cli/chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <deque>
#include <thread>

#include "clients/cli/connection.h"
#include "clients/cli/scripted_reader.h"
#include "clients/cli/wire_backend.h"
#include "tests/clients/fake_server.h"

namespace statehouse::cli {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class EndReader : public LineReader {
 public:
  Result Read(const std::string&, std::string*) override { return Result::kEnd; }
};

class ListReader : public LineReader {
 public:
  explicit ListReader(std::deque<std::string> lines) : lines_(std::move(lines)) {}
  Result Read(const std::string&, std::string* line) override {
    if (lines_.empty()) return Result::kEnd;
    *line = lines_.front();
    lines_.pop_front();
    return *line == "^C" ? Result::kInterrupted : Result::kLine;
  }

 private:
  std::deque<std::string> lines_;
};

class ChatTest : public testing::Test {
 protected:
  ChatTest() : connection_(*Connection::Open({.address = server_.address()})), backend_(connection_.get()) {
    options_.out = std::tmpfile();
    options_.err = std::tmpfile();
    options_.model.set_name("fake");
    options_.model.set_state_bytes_per_sequence(2'097'152);
  }
  ~ChatTest() override {
    std::fclose(options_.out);
    std::fclose(options_.err);
  }

  // Runs a chat over the lines; what it printed is in out() and err().
  int Run(std::deque<std::string> lines) {
    Chat chat(backend_, interrupts_, options_);
    ListReader reader(std::move(lines));
    const int status = chat.Run(reader);
    for (const v1::ChatMessage& message : chat.messages().messages())
      history_.push_back(message.role() + ": " + message.content());
    return status;
  }
  static std::string Contents(std::FILE* file) {
    std::string text;
    std::rewind(file);
    for (int c; (c = std::fgetc(file)) != EOF;) text.push_back(static_cast<char>(c));
    return text;
  }
  std::string out() { return Contents(options_.out); }
  std::string err() { return Contents(options_.err); }
  // The messages of the request number `idx`.
  std::vector<std::string> Asked(int idx) {
    std::vector<std::string> messages;
    const v1::GenerateRequest request = server_.requests().at(idx);
    for (const v1::ChatMessage& m : request.chat().messages()) messages.push_back(m.role() + ": " + m.content());
    return messages;
  }

  FakeServer server_;
  Interrupts interrupts_;
  std::unique_ptr<Connection> connection_;
  WireBackend backend_;
  ChatOptions options_;
  std::vector<std::string> history_;
};

TEST_F(ChatTest, TwoTurnsInAPipe_SendTheWholeConversationAndPrintOnlyAnswers) {
  EXPECT_EQ(Run({"hi", "", "again"}), 0);
  EXPECT_EQ(out(), "Hello there .\nHello there .\n");
  EXPECT_EQ(err(), "");
  EXPECT_THAT(Asked(0), ElementsAre("user: hi"));
  EXPECT_THAT(Asked(1), ElementsAre("user: hi", "assistant: Hello there .", "user: again"));
}

TEST_F(ChatTest, OnATerminal_ShowsSpeedAndTheConstantState) {
  options_.terminal = Terminal(true, false);
  EXPECT_EQ(Run({"hi"}), 0);
  EXPECT_THAT(out(),
              HasSubstr("3 tokens · 4.0 tok/s · first token 250 ms · context 8 tokens · state 2.10 MB, constant"));
}

TEST_F(ChatTest, SystemMessage_ComesFirstAndStartsAfresh) {
  options_.system = "Be brief.";
  Run({"hi", "/system Be long.", "so?"});
  EXPECT_THAT(Asked(0), ElementsAre("system: Be brief.", "user: hi"));
  EXPECT_THAT(Asked(1), ElementsAre("system: Be long.", "user: so?"));
}

TEST_F(ChatTest, Reset_ForgetsTheConversation) {
  Run({"hi", "/reset", "who am I?"});
  EXPECT_THAT(Asked(1), ElementsAre("user: who am I?"));
}

TEST_F(ChatTest, Retry_AsksTheSameAgain) {
  Run({"hi", "/retry", "/retry"});
  EXPECT_EQ(server_.requests().size(), 3u);
  EXPECT_THAT(Asked(2), ElementsAre("user: hi"));
  EXPECT_THAT(history_, ElementsAre("user: hi", "assistant: Hello there ."));
}

TEST_F(ChatTest, RetryThatFails_KeepsTheAnswerThereWas) {
  Chat chat(backend_, interrupts_, options_);
  chat.Handle("hi");
  server_.set_answer("");
  server_.set_status({grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full"});
  chat.Handle("/retry");
  ASSERT_EQ(chat.messages().messages_size(), 2);
  EXPECT_EQ(chat.messages().messages(0).content(), "hi");
  EXPECT_EQ(chat.messages().messages(1).content(), "Hello there .");
  server_.set_answer("Another .");
  server_.set_status(grpc::Status::OK);
  chat.Handle("/retry");
  ASSERT_EQ(chat.messages().messages_size(), 2);
  EXPECT_EQ(chat.messages().messages(1).content(), "Another .");
}

TEST_F(ChatTest, CancelledBeforeItIsSent_IsNeverSent) {
  v1::GenerateRequest request;
  request.set_text("x");
  backend_.ForgetCancel();
  backend_.Cancel();
  EXPECT_TRUE(absl::IsCancelled(backend_.Generate(request, [](const v1::GenerateEvent&) {})));
  EXPECT_THAT(server_.requests(), IsEmpty());
  backend_.ForgetCancel();
  EXPECT_TRUE(backend_.Generate(request, [](const v1::GenerateEvent&) {}).ok());
}

TEST_F(ChatTest, EachCtrlC_IsHeard) {
  std::atomic<int> heard{0};
  Interrupts::Watch watch(interrupts_, [&] { ++heard; });
  for (int wanted = 1; wanted <= 3; ++wanted) {
    kill(getpid(), SIGINT);
    for (int i = 0; i < 2000 && heard < wanted; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    ASSERT_EQ(heard, wanted);
  }
}

TEST_F(ChatTest, RetryBeforeAnyAnswer_SaysSo) {
  Run({"/retry"});
  EXPECT_THAT(err(), HasSubstr("there is no answer to retry"));
  EXPECT_THAT(server_.requests(), IsEmpty());
}

TEST_F(ChatTest, LineEndingInABackslash_GoesOnInTheNext) {
  Run({"one\\", "two"});
  EXPECT_THAT(Asked(0), ElementsAre("user: one\ntwo"));
}

TEST_F(ChatTest, InterruptedWhileTyping_DropsTheLine) {
  Run({"one\\", "^C", "two"});
  EXPECT_THAT(Asked(0), ElementsAre("user: two"));
}

TEST_F(ChatTest, UnknownCommand_IsNotSentToTheModel) {
  Run({"/rest"});
  EXPECT_THAT(err(), HasSubstr("there is no command /rest; /help lists them"));
  EXPECT_THAT(server_.requests(), IsEmpty());
}

TEST_F(ChatTest, Quit_LeavesWithoutReadingOn) {
  Run({"/quit", "hi"});
  EXPECT_THAT(server_.requests(), IsEmpty());
}

TEST_F(ChatTest, Stats_CompareStateAndKvCache) {
  options_.model.set_num_layers(30);
  options_.model.set_heads_kv(2);
  options_.model.set_head_dim(128);
  Run({"hi", "/stats"});
  EXPECT_THAT(out(), HasSubstr("state       2.10 MB, constant"));
  EXPECT_THAT(out(), HasSubstr("would hold 246 kB now, 30.7 GB at 1 M tokens"));
}

TEST_F(ChatTest, RefusedAnswer_IsReportedAndTheQuestionTakenBack) {
  server_.set_answer("");
  server_.set_status({grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full; retry in 2 s"});
  EXPECT_EQ(Run({"hi"}), 1);
  EXPECT_EQ(err(), "statehouse: the queue is full; retry in 2 s\n");
  EXPECT_THAT(history_, IsEmpty());
}

TEST_F(ChatTest, AnswerThatBreaksOff_StaysAsFarAsItCame) {
  server_.set_status({grpc::StatusCode::DEADLINE_EXCEEDED, "too slow"});
  EXPECT_EQ(Run({"hi"}), 1);
  EXPECT_THAT(history_, ElementsAre("user: hi", "assistant: Hello there ."));
}

TEST_F(ChatTest, CtrlCDuringAnAnswer_CancelsItOnTheServerAndTheChatGoesOn) {
  std::string answer(400, 'a');
  answer += " b c d e f g h i j k l m n o p q r s t u v w x y z";
  server_.set_answer(answer);
  server_.set_pause(std::chrono::milliseconds(400));
  options_.terminal = Terminal(true, false);
  std::thread user([&] {
    while (server_.requests().empty()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::this_thread::sleep_for(std::chrono::milliseconds(600));
    kill(getpid(), SIGINT);
    EXPECT_TRUE(server_.WaitForCancelled(1));
    server_.set_pause(std::chrono::milliseconds(0));
    server_.set_answer("Still here .");
  });
  Chat chat(backend_, interrupts_, options_);
  EXPECT_TRUE(chat.Handle("tell me everything"));
  user.join();
  EXPECT_TRUE(chat.Handle("are you there?"));
  EXPECT_THAT(out(), HasSubstr("stopped"));
  EXPECT_THAT(out(), Not(HasSubstr(" z")));
  EXPECT_THAT(out(), HasSubstr("Still here ."));
  const std::vector<std::string> second = Asked(1);
  ASSERT_EQ(second.size(), 3u) << "the answer as far as it came belongs to the conversation";
  EXPECT_THAT(second[1], HasSubstr("assistant: aaaa"));
}

TEST_F(ChatTest, ServerGone_SaysHowToStartOne) {
  const auto connection = Connection::Open({.address = "127.0.0.1:1"});
  WireBackend backend(connection->get());
  Chat chat(backend, interrupts_, options_);
  chat.Handle("hi");
  EXPECT_THAT(err(), HasSubstr("no server answers at 127.0.0.1:1"));
  EXPECT_THAT(err(), HasSubstr("statehouse serve --model DIR"));
}

TEST(ConnectionTest, AToken_GoesToOtherMachinesInClearOnlyWhenAskedTo) {
  const auto opens = [](const std::string& address, bool tls, bool in_clear) {
    return Connection::Open({.address = address, .tls = tls, .token = "secret", .token_in_clear = in_clear}).status();
  };
  for (const char* address : {"unix:/run/x", "127.0.0.1:1", "127.3.2.1:1", "[::1]:1", "localhost:1"}) {
    EXPECT_TRUE(opens(address, false, false).ok()) << address;
  }
  for (const char* address : {"10.0.0.5:1", "127.example.org:1", "example.org:1", "[2001:db8::1]:1"}) {
    const absl::Status status = opens(address, false, false);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << address;
    EXPECT_THAT(std::string(status.message()), HasSubstr("--token-in-clear")) << address;
    EXPECT_TRUE(opens(address, true, false).ok()) << address;
    EXPECT_TRUE(opens(address, false, true).ok()) << address;
  }
  EXPECT_TRUE(Connection::Open({.address = "10.0.0.5:1"}).ok()) << "without a token there is none to lose";
}

TEST(ConnectionTest, NobodyAtASocketFile_IsNotSaidToNeedTls) {
  const auto connection = Connection::Open({.address = "unix:/no/such/socket"});
  WireBackend backend(connection->get());
  const absl::Status status = backend.Generate({}, [](const v1::GenerateEvent&) {});
  EXPECT_THAT(std::string(status.message()), HasSubstr("no server answers"));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("TLS")));
}

TEST(ConnectionTest, ASocketFile_IsSpokenToWithoutTls) {
  const std::string path = testing::TempDir() + "/chat_test_socket";
  FakeServer server("unix:" + path);
  // As in a container whose environment tells of the server's own encryption.
  const auto connection = Connection::Open({.address = "unix:" + path, .tls = true});
  ASSERT_TRUE(connection.ok()) << connection.status();
  WireBackend backend(connection->get());
  v1::GenerateRequest request;
  request.set_text("x");
  const absl::Status status = backend.Generate(request, [](const v1::GenerateEvent&) {});
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(ChatTest, ScriptedLines_AreShownAfterThePromptAndAnswered) {
  Chat chat(backend_, interrupts_, options_);
  ScriptedReader reader({"hi", "bye"}, std::make_unique<EndReader>(), interrupts_, {.out = options_.out});
  EXPECT_EQ(chat.Run(reader), 0);
  EXPECT_EQ(out(), "> hi\nHello there .\n> bye\nHello there .\n");
}

TEST_F(ChatTest, ControlCharactersInAnAnswer_DoNotReachTheTerminal) {
  options_.terminal = Terminal(true, false);
  server_.set_answer("a\033]0;owned\a b");
  Run({"hi"});
  EXPECT_THAT(out(), Not(HasSubstr("\033]0")));
  EXPECT_THAT(out(), HasSubstr("\uFFFD]0;owned\uFFFD b"));
}

// A server's session of which the test says what it holds.
class FakeSession : public ChatSession {
 public:
  const std::string& name() const override { return name_; }
  absl::StatusOr<Exchange> LastExchange() override { return exchange; }
  absl::Status Rewind(int64_t position) override {
    rewinds.push_back(position);
    return absl::OkStatus();
  }

  Exchange exchange;
  std::vector<int64_t> rewinds;

 private:
  const std::string name_ = "ada";
};

TEST_F(ChatTest, WithASession_OnlyWhatIsNewIsSent) {
  FakeSession session;
  options_.session = &session;
  options_.system = "Be brief.";
  Run({"hi", "again"});
  EXPECT_THAT(Asked(0), ElementsAre("system: Be brief.", "user: hi"));
  EXPECT_THAT(Asked(1), ElementsAre("user: again"));
  EXPECT_EQ(server_.requests()[0].session().session(), "ada");
  EXPECT_TRUE(server_.requests()[0].session().create_if_missing());
  EXPECT_EQ(server_.requests()[0].session().on_failure(), v1::ON_FAILURE_KEEP_DELIVERED);
}

TEST_F(ChatTest, ResumedSession_ShowsTheLastExchangeAndGoesOn) {
  FakeSession session;
  session.exchange = {
      .position = 40, .turns = 3, .begin = 25, .messages = {{"user", "I live in Lund."}, {"assistant", "Noted."}}};
  options_.session = &session;
  options_.terminal = Terminal(true, false);
  Chat chat(backend_, interrupts_, options_);
  ASSERT_TRUE(chat.Resume().ok());
  EXPECT_THAT(out(), HasSubstr("session ada goes on: 40 tokens in 3 turns\n> I live in Lund.\nNoted.\n"));
  chat.Handle("/stats");
  EXPECT_THAT(out(), HasSubstr("context     40 tokens in 2 messages"));
  chat.Handle("/retry");
  EXPECT_THAT(session.rewinds, ElementsAre(25)) << "the session forgets the answer, too";
  EXPECT_THAT(Asked(0), ElementsAre("user: I live in Lund."));
  chat.Handle("bye");
  EXPECT_THAT(Asked(1), ElementsAre("user: bye"));
  chat.Handle("/reset");
  EXPECT_THAT(session.rewinds, ElementsAre(25, 0));
}

v1::SessionOutcome Kept(int64_t position_before, int64_t position) {
  v1::SessionOutcome outcome;
  outcome.set_position_before(position_before);
  outcome.set_position(position);
  outcome.set_committed(position > position_before);
  return outcome;
}

TEST_F(ChatTest, TurnOfASessionThatEndsWithoutAnAnswer_IsTakenBackOnTheServer) {
  FakeSession session;
  options_.session = &session;
  Chat chat(backend_, interrupts_, options_);
  chat.Handle("hi");
  server_.set_answer("");
  server_.set_status({grpc::StatusCode::CANCELLED, "cancelled"});
  server_.set_failed_outcome(Kept(20, 25));  // the question stays there
  chat.Handle("wait");
  EXPECT_THAT(session.rewinds, ElementsAre(20));
  EXPECT_EQ(chat.messages().messages_size(), 2);
  server_.set_answer("Fine .");
  server_.set_status(grpc::Status::OK);
  chat.Handle("go on");
  EXPECT_THAT(Asked(2), ElementsAre("user: go on"));
}

TEST_F(ChatTest, TurnOfASessionThatKeepsNothing_IsNoPartOfTheConversation) {
  FakeSession session;
  session.exchange = {.position = 40, .turns = 3, .begin = 25, .messages = {{"user", "one"}, {"assistant", "two"}}};
  options_.session = &session;
  Chat chat(backend_, interrupts_, options_);
  ASSERT_TRUE(chat.Resume().ok());
  server_.set_status({grpc::StatusCode::INTERNAL, "a step failed"});
  server_.set_failed_outcome(Kept(40, 40));
  chat.Handle("three");
  ASSERT_EQ(chat.messages().messages_size(), 2) << "shown, but nowhere kept";
  server_.set_status(grpc::Status::OK);
  chat.Handle("/retry");
  EXPECT_THAT(session.rewinds, ElementsAre(25)) << "the exchange before it is the last one again";
  EXPECT_THAT(Asked(1), ElementsAre("user: one"));
}

TEST_F(ChatTest, TurnOfASessionWhoseOutcomeIsNotTold_IsNotSaidToKeepNothingAndNothingIsRetried) {
  FakeSession session;
  session.exchange = {.position = 40, .turns = 3, .begin = 25, .messages = {{"user", "one"}, {"assistant", "two"}}};
  options_.session = &session;
  options_.terminal = Terminal(true, false);
  Chat chat(backend_, interrupts_, options_);
  ASSERT_TRUE(chat.Resume().ok());
  server_.set_status({grpc::StatusCode::UNAVAILABLE, "gone"});
  chat.Handle("three");
  EXPECT_THAT(out(), HasSubstr("it is not known what the session keeps of this exchange"));
  EXPECT_THAT(out(), Not(HasSubstr("keeps nothing")));
  server_.set_status(grpc::Status::OK);
  chat.Handle("/retry");
  EXPECT_THAT(session.rewinds, IsEmpty()) << "it may take back more than the exchange before";
  EXPECT_EQ(server_.requests().size(), 1u);
}

TEST_F(ChatTest, CtrlCInATurnOfASession_StopsItByNameAndKeepsWhatWasRead) {
  FakeSession session;
  options_.session = &session;
  server_.set_answer("a b c d e f g h i j k l m n o p q r s t u v w x y z");
  server_.set_pause(std::chrono::milliseconds(200));
  server_.set_failed_outcome(Kept(0, 7));
  std::thread user([&] {
    while (server_.words_written() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    kill(getpid(), SIGINT);
    EXPECT_TRUE(server_.WaitForCancelled(1));
  });
  Chat chat(backend_, interrupts_, options_);
  chat.Handle("tell me everything");
  user.join();
  EXPECT_EQ(server_.cancelled_by_name(), 1) << "a stream that just breaks off looks like a lost client's";
  EXPECT_EQ(server_.cancelled_session(), "ada") << "else a proxy sends it to any server";
  ASSERT_EQ(chat.messages().messages_size(), 2);
  EXPECT_THAT(chat.messages().messages(1).content(), HasSubstr("a"));
  EXPECT_THAT(session.rewinds, IsEmpty());
  chat.Handle("/stats");
  EXPECT_THAT(out(), HasSubstr("answers     0, 0 tokens; 1 cut off\ncontext     7 tokens in 2 messages\n"));
}

TEST_F(ChatTest, WhatAServerSaysOfAFailure_CannotSteerTheTerminal) {
  options_.terminal = Terminal(true, false);
  FakeSession session;
  session.exchange = {.position = 4, .turns = 1, .begin = 0, .messages = {{"user", "a\033]0;owned\ab"}}};
  options_.session = &session;
  Chat chat(backend_, interrupts_, options_);
  ASSERT_TRUE(chat.Resume().ok());
  EXPECT_THAT(out(), Not(HasSubstr("\033]0")));
  EXPECT_THAT(out(), HasSubstr("a\uFFFD]0;owned\uFFFDb"));
}

}  // namespace
}  // namespace statehouse::cli
