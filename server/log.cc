#include "server/log.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "proto/utf8.h"

namespace statehouse {
namespace {

const char* LevelName(Log::Level level) {
  switch (level) {
    case Log::Level::kInfo:
      return "info";
    case Log::Level::kWarning:
      return "warning";
    case Log::Level::kError:
      return "error";
  }
  return "";
}

std::string Timestamp() { return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone()); }

bool NeedsQuotes(std::string_view text) {
  for (const char c : text) {
    if (c <= ' ' || c > '~' || c == '"' || c == '=' || c == '\\') return true;
  }
  return text.empty();
}

std::string Number(double value) { return std::isfinite(value) ? absl::StrFormat("%.6g", value) : "null"; }

struct ToText {
  std::string operator()(const std::string& value) const { return NeedsQuotes(value) ? JsonString(value) : value; }
  std::string operator()(int64_t value) const { return absl::StrCat(value); }
  std::string operator()(double value) const { return Number(value); }
  std::string operator()(bool value) const { return value ? "true" : "false"; }
};

struct ToJson : ToText {
  using ToText::operator();
  std::string operator()(const std::string& value) const { return JsonString(value); }
};

}  // namespace

void AddError(const absl::Status& status, bool log_prompts, Log::Fields* fields) {
  if (status.ok() || (absl::IsInvalidArgument(status) && !log_prompts)) return;
  fields->emplace_back("error", std::string(status.message()));
}

std::string JsonString(std::string_view text) {
  std::string out = "\"";
  for (const char c : ReplaceInvalidUtf8(text)) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7F) {
      out += absl::StrFormat("\\u%04x", byte);
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string Log::TextLine(Level level, std::string_view message, const Fields& fields) const {
  std::string line = absl::StrCat(Timestamp(), " ");
  const char* colour = !colour_ || level == Level::kInfo ? "" : level == Level::kWarning ? "\033[33m" : "\033[31m";
  absl::StrAppend(&line, colour, LevelName(level), *colour == 0 ? "" : "\033[0m", " ", std::string(message));
  for (const auto& [key, value] : fields) {
    absl::StrAppend(&line, " ", std::string(key), "=", std::visit(ToText(), value));
  }
  return line;
}

std::string Log::JsonLine(Level level, std::string_view message, const Fields& fields) const {
  std::string line = absl::StrCat("{\"time\":\"", Timestamp(), "\",\"level\":\"", LevelName(level),
                                  "\",\"message\":", JsonString(message));
  for (const auto& [key, value] : fields) {
    absl::StrAppend(&line, ",", JsonString(key), ":", std::visit(ToJson(), value));
  }
  return line + "}";
}

void Log::Write(Level level, std::string_view message, const Fields& fields) {
  std::string line = format_ == Format::kJson ? JsonLine(level, message, fields) : TextLine(level, message, fields);
  line += '\n';
  std::lock_guard<std::mutex> lock(mu_);
  std::fwrite(line.data(), 1, line.size(), out_);
  std::fflush(out_);
}

}  // namespace statehouse
