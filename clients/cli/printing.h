// How commands print what a server told them: as text or as JSON, and never so that it could steer a terminal.
// Thread-safety: functions without state.
#pragma once

#include <cstdio>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace statehouse::cli {

struct Printing {
  bool json = false;
  std::FILE* out = stdout;
};

// As Terminal::Harmless() shows it on `out`.
void Print(std::FILE* out, const std::string& text);
// Indented, with a newline; bytes that are no text become U+FFFD.
void PrintJson(std::FILE* out, const nlohmann::ordered_json& json);
// One of the two, as was asked for.
void Print(const Printing& printing, const nlohmann::ordered_json& json, const std::string& text);

}  // namespace statehouse::cli
