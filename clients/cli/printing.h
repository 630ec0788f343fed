// How commands print what a server told them: as text or as JSON, and never so that it could steer a terminal; and how
// the program finds out that it could not. Thread-safety: any thread.
#pragma once

#include <cstdio>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace statehouse::cli {

struct Printing {
  bool json = false;
  std::FILE* out = stdout;
};

// The bytes as they are, at once. A failure stays with `out` for FinishOutput() and std::ferror().
void Write(std::FILE* out, std::string_view text);
// As Terminal::Harmless() shows it on `out`.
void Print(std::FILE* out, const std::string& text);
// Indented, with a newline; bytes that are no text become U+FFFD.
void PrintJson(std::FILE* out, const nlohmann::ordered_json& json);
// One of the two, as was asked for.
void Print(const Printing& printing, const nlohmann::ordered_json& json, const std::string& text);

// The exit status of a program whose command ended with `status`: what was printed must have arrived. Otherwise says
// why on standard error and turns 0 into 1; a reader that left, as in `| head`, is no failure.
int FinishOutput(int status);

}  // namespace statehouse::cli
