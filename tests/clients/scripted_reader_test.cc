#include "clients/cli/scripted_reader.h"

#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace statehouse::cli {
namespace {

using Result = LineReader::Result;

// A person at the keyboard who types one line and leaves.
class OneLine : public LineReader {
 public:
  explicit OneLine(std::string line) : line_(std::move(line)) {}
  Result Read(const std::string&, std::string* line) override {
    if (line_.empty()) return Result::kEnd;
    *line = std::exchange(line_, "");
    return Result::kLine;
  }

 private:
  std::string line_;
};

class ScriptedReaderTest : public testing::Test {
 protected:
  ScriptedReaderTest() : out_(open_memstream(&shown_, &size_)) {}
  ~ScriptedReaderTest() override {
    std::fclose(out_);
    std::free(shown_);
  }
  ScriptedReader Make(std::vector<std::string> lines, int pause_ms = 0) {
    return ScriptedReader(std::move(lines), std::make_unique<OneLine>("mine"), interrupts_,
                          {.out = out_, .pause_per_character = std::chrono::milliseconds(pause_ms)});
  }
  std::string Shown() {
    std::fflush(out_);
    return std::string(shown_, size_);
  }

  Interrupts interrupts_;
  char* shown_ = nullptr;
  size_t size_ = 0;
  std::FILE* out_;
};

TEST_F(ScriptedReaderTest, GivenLinesComeFirst_ThenTheKeyboard) {
  ScriptedReader reader = Make({"Hi", "Zoë?"});
  std::string line;
  ASSERT_EQ(reader.Read("> ", &line), Result::kLine);
  EXPECT_EQ(line, "Hi");
  ASSERT_EQ(reader.Read("> ", &line), Result::kLine);
  EXPECT_EQ(line, "Zoë?");
  ASSERT_EQ(reader.Read("> ", &line), Result::kLine);
  EXPECT_EQ(line, "mine");
  EXPECT_EQ(reader.Read("> ", &line), Result::kEnd);
  EXPECT_EQ(Shown(), "> Hi\n> Zoë?\n");
}

TEST_F(ScriptedReaderTest, MarksThatOnlyTheLineEditorReads_AreNotShown) {
  ScriptedReader reader = Make({"Hi"});
  std::string line;
  ASSERT_EQ(reader.Read("\1\033[1m\1> \1\033[0m\1", &line), Result::kLine);
  EXPECT_EQ(Shown(), "\033[1m> \033[0mHi\n");
}

TEST_F(ScriptedReaderTest, InterruptedWhileTyping_DropsWhatWasLeft) {
  ScriptedReader reader = Make({"a line that is being typed", "never said"}, 1);
  std::string line;
  ASSERT_EQ(raise(SIGINT), 0);
  EXPECT_EQ(reader.Read("> ", &line), Result::kInterrupted);
  ASSERT_EQ(reader.Read("> ", &line), Result::kLine);
  EXPECT_EQ(line, "mine");
}

}  // namespace
}  // namespace statehouse::cli
