// The chat program on a real terminal (a pseudo-terminal), against a server without a model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/clients/fake_server.h"

namespace statehouse {
namespace {

using testing::HasSubstr;
using testing::Not;

// The program under a terminal of 100 columns.
class TerminalProgram {
 public:
  explicit TerminalProgram(std::vector<std::string> words) {
    winsize size = {.ws_row = 30, .ws_col = 100, .ws_xpixel = 0, .ws_ypixel = 0};
    std::vector<char*> argv;
    words.insert(words.begin(), STATEHOUSE_BINARY);
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_ = forkpty(&fd_, nullptr, nullptr, &size);
    if (pid_ == 0) {
      setenv("TERM", "xterm", 1);
      setenv("LC_ALL", "C.UTF-8", 1);
      execv(argv[0], argv.data());
      _exit(127);
    }
  }
  ~TerminalProgram() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    close(fd_);
  }

  void Type(const std::string& keys) {
    ASSERT_EQ(write(fd_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }

  // Waits until the screen has shown `text` since the last Await(); false after a minute. What was shown is in shown().
  bool Await(const std::string& text) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < until) {
      if (const size_t at = shown_.find(text, seen_); at != std::string::npos) {
        seen_ = at + text.size();
        return true;
      }
      if (!ReadSome()) break;
    }
    return shown_.find(text, seen_) != std::string::npos;
  }
  // Waits for the end and returns the exit status; -1 if a signal ended it or it did not end within a minute.
  int Wait() {
    for (int i = 0; i < 600; ++i) {
      if (!ReadSome()) usleep(100'000);  // the terminal is closed, the program not yet gone
      int status = 0;
      if (waitpid(pid_, &status, WNOHANG) == pid_) {
        pid_ = -1;
        if (WIFSIGNALED(status)) ADD_FAILURE() << "ended by signal " << WTERMSIG(status);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
      }
    }
    return -1;
  }
  const std::string& shown() const { return shown_; }

 private:
  bool ReadSome() {
    pollfd wait = {fd_, POLLIN, 0};
    if (poll(&wait, 1, 100) <= 0) return true;
    char chunk[4096];
    const ssize_t count = read(fd_, chunk, sizeof chunk);
    if (count > 0) shown_.append(chunk, count);
    return count > 0;
  }

  pid_t pid_ = -1;
  int fd_ = -1;
  std::string shown_;
  size_t seen_ = 0;
};

class ChatTerminalTest : public testing::Test {
 protected:
  ChatTerminalTest() {
    unsetenv("NO_COLOR");
    setenv("XDG_STATE_HOME", state_.c_str(), 1);
    setenv("XDG_CONFIG_HOME", state_.c_str(), 1);
    std::filesystem::remove_all(state_);
  }
  std::vector<std::string> ChatCommand() { return {"chat", "--address", server_.address()}; }

  const std::string state_ = testing::TempDir() + "/chat_terminal_state." + std::to_string(getpid());
  FakeServer server_;
};

TEST_F(ChatTerminalTest, QuestionAndAnswer_ShowStateSizeAndSpeed) {
  TerminalProgram program(ChatCommand());
  ASSERT_TRUE(program.Await("a conversation is 2.10 MB of state, however long")) << program.shown();
  ASSERT_TRUE(program.Await("> "));
  program.Type("hi\r");
  ASSERT_TRUE(program.Await("Hello there .")) << program.shown();
  ASSERT_TRUE(program.Await("4.0 tok/s")) << program.shown();
  ASSERT_TRUE(program.Await("state 2.10 MB, constant"));
  ASSERT_TRUE(program.Await("> "));
  program.Type("/quit\r");
  EXPECT_EQ(program.Wait(), 0);
}

TEST_F(ChatTerminalTest, CtrlCWhileAnAnswerStreams_StopsTheAnswerAndNotTheProgram) {
  server_.set_answer("one two three four five six seven eight nine ten eleven twelve");
  server_.set_pause(std::chrono::milliseconds(300));
  TerminalProgram program(ChatCommand());
  ASSERT_TRUE(program.Await("> "));
  program.Type("count\r");
  ASSERT_TRUE(program.Await("one two")) << program.shown();
  program.Type("\x03");  // Ctrl-C
  ASSERT_TRUE(program.Await("stopped")) << program.shown();
  EXPECT_TRUE(server_.WaitForCancelled(1));
  EXPECT_THAT(program.shown(), Not(HasSubstr("twelve")));
  server_.set_pause(std::chrono::milliseconds(0));
  server_.set_answer("I am still here");
  ASSERT_TRUE(program.Await("> "));
  program.Type("hello?\r");
  ASSERT_TRUE(program.Await("I am still here")) << program.shown();
  program.Type("/quit\r");
  EXPECT_EQ(program.Wait(), 0);
  EXPECT_EQ(server_.requests().at(1).chat().messages_size(), 3) << "the stopped answer belongs to the conversation";
}

TEST_F(ChatTerminalTest, KeysTypedWhileAnAnswerStreams_AreReadAfterIt) {
  server_.set_answer("one two three four five six");
  server_.set_pause(std::chrono::milliseconds(100));
  for (const std::string& leave : {std::string("\x04"), std::string("/quit\r"), std::string("again\r\x04")}) {
    TerminalProgram program(ChatCommand());
    ASSERT_TRUE(program.Await("> "));
    program.Type("count\r");
    ASSERT_TRUE(program.Await("one two")) << program.shown();
    program.Type(leave);
    EXPECT_EQ(program.Wait(), 0) << program.shown();
  }
  EXPECT_EQ(server_.requests().size(), 4u);
}

TEST_F(ChatTerminalTest, CtrlCWhileTyping_DropsTheLine) {
  TerminalProgram program(ChatCommand());
  ASSERT_TRUE(program.Await("> "));
  program.Type("half a li");
  ASSERT_TRUE(program.Await("li"));
  program.Type("\x03");
  ASSERT_TRUE(program.Await("Ctrl-D or /quit leaves")) << program.shown();
  program.Type("whole\r");
  ASSERT_TRUE(program.Await("Hello there ."));
  ASSERT_TRUE(program.Await("> "));
  program.Type("/quit\r");
  EXPECT_EQ(program.Wait(), 0);
  ASSERT_EQ(server_.requests().size(), 1u);
  EXPECT_EQ(server_.requests()[0].chat().messages(0).content(), "whole");
}

TEST_F(ChatTerminalTest, LinesTyped_CanBeEditedAndComeBackInTheNextProgram) {
  {
    TerminalProgram program(ChatCommand());
    ASSERT_TRUE(program.Await("> "));
    program.Type("ja, wörld\x01n\x7F\x05!\r");  // Ctrl-A, a letter and its removal, Ctrl-E
    ASSERT_TRUE(program.Await("Hello there .")) << program.shown();
    ASSERT_TRUE(program.Await("> "));
    program.Type("\x04");  // a /quit would be the newest line of the history
    EXPECT_EQ(program.Wait(), 0);
  }
  TerminalProgram program(ChatCommand());
  ASSERT_TRUE(program.Await("> "));
  program.Type("\x1b[A");  // Up
  ASSERT_TRUE(program.Await("ja, wörld!")) << program.shown();
  program.Type("\r");
  ASSERT_TRUE(program.Await("Hello there ."));
  ASSERT_TRUE(program.Await("> "));
  program.Type("/quit\r");
  EXPECT_EQ(program.Wait(), 0);
  ASSERT_EQ(server_.requests().size(), 2u);
  EXPECT_EQ(server_.requests()[0].chat().messages(0).content(), "ja, wörld!");
  EXPECT_EQ(server_.requests()[1].chat().messages(0).content(), "ja, wörld!");
  const auto mode = std::filesystem::status(state_ + "/statehouse/chat_history").permissions();
  EXPECT_EQ(mode & std::filesystem::perms::all,
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST_F(ChatTerminalTest, ErrorsAreRedOnATerminal_AndPlainWithNoColor) {
  {
    TerminalProgram program({"chat", "--address", "127.0.0.1:1"});
    EXPECT_TRUE(program.Await("\033[31mstatehouse:\033[0m no server answers")) << program.shown();
    EXPECT_EQ(program.Wait(), 1);
  }
  setenv("NO_COLOR", "1", 1);
  TerminalProgram program({"chat", "--address", "127.0.0.1:1"});
  EXPECT_TRUE(program.Await("statehouse: no server answers")) << program.shown();
  EXPECT_THAT(program.shown(), Not(HasSubstr("\033[31m")));
  EXPECT_EQ(program.Wait(), 1);
  unsetenv("NO_COLOR");
}

TEST_F(ChatTerminalTest, ModelWithoutChatTemplate_IsRefusedWithTheWayOn) {
  server_.set_chat_template("");
  TerminalProgram program(ChatCommand());
  EXPECT_TRUE(program.Await("has no chat template. Use statehouse generate")) << program.shown();
  EXPECT_EQ(program.Wait(), 1);
}

TEST_F(ChatTerminalTest, WrongToken_SaysWhichFlag) {
  server_.set_token("secret");
  TerminalProgram program(ChatCommand());
  EXPECT_TRUE(program.Await("--token or STATEHOUSE_TOKEN")) << program.shown();
  EXPECT_EQ(program.Wait(), 1);
}

}  // namespace
}  // namespace statehouse
