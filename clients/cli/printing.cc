#include "clients/cli/printing.h"

#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "clients/cli/terminal.h"

namespace statehouse::cli {
namespace {

// Of the first write to standard output that failed; stdio itself only remembers that one did. 0: none, or not known.
std::atomic<int> first_error{0};

void NoteError(std::FILE* out) {
  int none = 0;
  if (out == stdout) first_error.compare_exchange_strong(none, errno);
}

// Also where whoever wrote did not keep the reason.
bool HasReaderLeft() {
  if (first_error == EPIPE) return true;
  struct pollfd about = {.fd = STDOUT_FILENO, .events = 0, .revents = 0};
  return first_error == 0 && poll(&about, 1, 0) == 1 && (about.revents & (POLLERR | POLLHUP)) != 0;
}

}  // namespace

void Write(std::FILE* out, std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), out) != text.size() || std::fflush(out) != 0) NoteError(out);
}

void Print(std::FILE* out, const std::string& text) { Write(out, Terminal::Detect(fileno(out)).Harmless(text)); }

void PrintJson(std::FILE* out, const nlohmann::ordered_json& json) {
  Print(out, json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

void Print(const Printing& printing, const nlohmann::ordered_json& json, const std::string& text) {
  printing.json ? PrintJson(printing.out, json) : Print(printing.out, text);
}

int FinishOutput(int status) {
  if (std::fflush(stdout) != 0) NoteError(stdout);
  if (std::ferror(stdout) == 0 || HasReaderLeft()) return status;
  const int error = first_error;
  std::fprintf(stderr, "statehouse: standard output: %s\n",
               error == 0 ? "not all of it could be written" : std::strerror(error));
  return status == 0 ? 1 : status;
}

}  // namespace statehouse::cli
