#include "tests/clients/program_runner.h"

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace statehouse {
namespace {

std::string Quoted(const std::string& word) {
  std::string quoted = "'";
  for (char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string Contents(const std::filesystem::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

}  // namespace

std::string ProgramPath() { return STATEHOUSE_BINARY; }

ProgramResult RunProgram(const std::vector<std::string>& words, const std::string& input,
                         const std::vector<std::string>& environment, const std::string& redirections) {
  char pattern[] = "/tmp/statehouse_program_XXXXXX";
  const std::filesystem::path folder = mkdtemp(pattern);
  std::ofstream(folder / "in", std::ios::binary) << input;
  std::string command = "env -i PATH=/usr/bin:/bin HOME=" + folder.string();
  for (const char* name : {"ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"}) {
    if (const char* value = std::getenv(name)) command += " " + Quoted(std::string(name) + "=" + value);
  }
  for (const std::string& variable : environment) command += " " + Quoted(variable);
  command += " " STATEHOUSE_BINARY;
  for (const std::string& word : words) command += " " + Quoted(word);
  command += " <" + (folder / "in").string() + " >" + (folder / "out").string() + " 2>" + (folder / "err").string() +
             " " + redirections;
  const int status = std::system(command.c_str());
  ProgramResult result = {WIFEXITED(status) ? WEXITSTATUS(status) : -1, Contents(folder / "out"),
                          Contents(folder / "err")};
  std::filesystem::remove_all(folder);
  return result;
}

}  // namespace statehouse
