#include "clients/cli/printing.h"

#include <nlohmann/json.hpp>

#include "clients/cli/terminal.h"

namespace statehouse::cli {

void Print(std::FILE* out, const std::string& text) {
  const std::string shown = Terminal::Detect(fileno(out)).Harmless(text);
  std::fwrite(shown.data(), 1, shown.size(), out);
  std::fflush(out);
}

void PrintJson(std::FILE* out, const nlohmann::ordered_json& json) {
  Print(out, json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

void Print(const Printing& printing, const nlohmann::ordered_json& json, const std::string& text) {
  printing.json ? PrintJson(printing.out, json) : Print(printing.out, text);
}

}  // namespace statehouse::cli
