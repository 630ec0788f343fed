#include "clients/cli/line_reader.h"

#include <histedit.h>
#include <langinfo.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstdlib>
#include <cstring>
#include <cwchar>
#include <system_error>

namespace statehouse::cli {
namespace {

constexpr int kHistoryLines = 1000;
constexpr char kCtrlD = '\x04';

// Reads by hand: std::cin would wait through a Ctrl-C.
class PipeReader : public LineReader {
 public:
  explicit PipeReader(Interrupts& interrupts) : interrupts_(interrupts) {}

  Result Read(const std::string&, std::string* line) override {
    size_t newline = buffer_.find('\n');
    while (newline == std::string::npos && ReadSome()) newline = buffer_.find('\n');
    if (newline == std::string::npos && (buffer_.empty() || interrupted_)) return Result::kEnd;
    *line = buffer_.substr(0, newline);
    buffer_.erase(0, newline == std::string::npos ? newline : newline + 1);
    if (!line->empty() && line->back() == '\r') line->pop_back();
    return Result::kLine;
  }

 private:
  // False at the end of the pipe, and after Ctrl-C, which ends a program that nobody types into.
  bool ReadSome() {
    pollfd waits[2] = {{STDIN_FILENO, POLLIN, 0}, {interrupts_.fd(), POLLIN, 0}};
    if (poll(waits, 2, -1) < 0) return errno == EINTR;
    if (interrupts_.Take()) interrupted_ = true;
    if (interrupted_) return false;
    char chunk[4096];
    const ssize_t count = read(STDIN_FILENO, chunk, sizeof chunk);
    if (count > 0) buffer_.append(chunk, static_cast<size_t>(count));
    return count > 0 || (count < 0 && errno == EINTR);
  }

  Interrupts& interrupts_;
  std::string buffer_;
  bool interrupted_ = false;
};

class TerminalReader : public LineReader {
 public:
  TerminalReader(Interrupts& interrupts, std::filesystem::path history_file)
      : interrupts_(interrupts), history_file_(std::move(history_file)) {
    setlocale(LC_CTYPE, "");
    if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
    history_ = history_init();
    HistEvent event;
    history(history_, &event, H_SETSIZE, kHistoryLines);
    history(history_, &event, H_SETUNIQUE, 1);
    if (!history_file_.empty()) history(history_, &event, H_LOAD, history_file_.c_str());
    editor_ = el_init("statehouse", stdin, stdout, stderr);
    el_set(editor_, EL_CLIENTDATA, this);
    el_set(editor_, EL_EDITOR, "emacs");
    el_set(editor_, EL_SIGNAL, 0);
    el_set(editor_, EL_HIST, history, history_);
    el_set(editor_, EL_PROMPT_ESC, &TerminalReader::Prompt, '\1');
    el_set(editor_, EL_GETCFN, &TerminalReader::GetChar);
    for (const auto& [key, command] : {std::pair{"^R", "em-inc-search-prev"},
                                       {"^W", "ed-delete-prev-word"},
                                       {"\\e[3~", "ed-delete-next-char"},
                                       {"\\e[1~", "ed-move-to-beg"},
                                       {"\\e[4~", "ed-move-to-end"},
                                       {"\\e[1;5C", "em-next-word"},
                                       {"\\e[1;5D", "ed-prev-word"}}) {
      el_set(editor_, EL_BIND, key, command, nullptr);
    }
  }

  ~TerminalReader() override {
    el_end(editor_);
    history_end(history_);
  }

  Result Read(const std::string& prompt, std::string* line) override {
    prompt_ = prompt;
    interrupted_ = false;
    typed_ahead_ = -1;
    interrupts_.Take();
    el_resize(editor_);
    int size = 0;
    const char* text = el_gets(editor_, &size);
    if (interrupted_) {
      std::fputs("^C\n", stdout);
      return Result::kInterrupted;
    }
    if (text == nullptr || size <= 0) {
      std::fputs("\n", stdout);
      return Result::kEnd;
    }
    line->assign(text, static_cast<size_t>(size));
    while (!line->empty() && (line->back() == '\n' || line->back() == '\r')) line->pop_back();
    if (!line->empty()) Remember(*line);
    return Result::kLine;
  }

 private:
  void Remember(const std::string& line) {
    HistEvent event;
    history(history_, &event, H_ENTER, line.c_str());
    if (history_file_.empty()) return;
    std::error_code ignored;  // a history that cannot be kept is no reason to stop a chat
    std::filesystem::create_directories(history_file_.parent_path(), ignored);
    history(history_, &event, H_SAVE, history_file_.c_str());
  }

  static TerminalReader* Self(EditLine* editor) {
    TerminalReader* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    return self;
  }

  static char* Prompt(EditLine* editor) { return Self(editor)->prompt_.data(); }

  // Keys typed while an answer came met a terminal that edits lines itself, and it hands a Ctrl-D on as a zero byte.
  // How many such keys wait can be asked once the editor has taken the terminal over: at the line's first character.
  void CountTypedAhead() {
    if (typed_ahead_ < 0 && ioctl(STDIN_FILENO, FIONREAD, &typed_ahead_) != 0) typed_ahead_ = 0;
  }
  bool TypedAhead() { return typed_ahead_ > 0 && typed_ahead_-- > 0; }

  // One character, or -1 on Ctrl-C, which libedit itself would wait through.
  static int GetChar(EditLine* editor, wchar_t* out) {
    TerminalReader* self = Self(editor);
    self->CountTypedAhead();
    std::mbstate_t state = {};
    while (true) {
      pollfd waits[2] = {{STDIN_FILENO, POLLIN, 0}, {self->interrupts_.fd(), POLLIN, 0}};
      if (poll(waits, 2, -1) < 0 && errno != EINTR) return -1;
      if (self->interrupts_.Take()) {
        self->interrupted_ = true;
        errno = ECANCELED;
        return -1;
      }
      if ((waits[0].revents & (POLLIN | POLLHUP)) == 0) continue;
      char byte = 0;
      const ssize_t count = read(STDIN_FILENO, &byte, 1);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return static_cast<int>(count);
      if (self->TypedAhead() && byte == '\0') byte = kCtrlD;
      const size_t result = std::mbrtowc(out, &byte, 1, &state);
      if (result == static_cast<size_t>(-2)) continue;  // more bytes to come
      if (result == static_cast<size_t>(-1)) {          // no character: leave it out
        state = {};
        continue;
      }
      return 1;
    }
  }

  Interrupts& interrupts_;
  const std::filesystem::path history_file_;
  History* history_ = nullptr;
  EditLine* editor_ = nullptr;
  std::string prompt_;
  bool interrupted_ = false;
  int typed_ahead_ = 0;  // bytes; -1: not asked yet
};

}  // namespace

std::unique_ptr<LineReader> MakeLineReader(Interrupts& interrupts, const std::filesystem::path& history_file) {
  if (isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1) {
    return std::make_unique<TerminalReader>(interrupts, history_file);
  }
  return std::make_unique<PipeReader>(interrupts);
}

std::filesystem::path DefaultHistoryFile() {
  const char* state = std::getenv("XDG_STATE_HOME");
  if (state != nullptr && *state == '/') return std::filesystem::path(state) / "statehouse" / "chat_history";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home == '\0') return {};
  return std::filesystem::path(home) / ".local" / "state" / "statehouse" / "chat_history";
}

}  // namespace statehouse::cli
