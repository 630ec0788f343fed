// Log lines on standard error: readable text, or one JSON object per line. Thread-safety: any thread.
//
//   log.Write(Log::Level::kInfo, "request", {{"id", id}, {"prompt_tokens", 12}});
#pragma once

#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"

namespace statehouse {

class Log {
 public:
  enum class Format { kText, kJson };
  enum class Level { kInfo, kWarning, kError };
  using Value = std::variant<std::string, int64_t, double, bool>;
  using Fields = std::vector<std::pair<std::string_view, Value>>;

  // Writes to `out`, which must outlive this object. Colour marks warnings and errors where `colour`, in text only.
  explicit Log(Format format = Format::kText, std::FILE* out = stderr, bool colour = false)
      : format_(format), out_(out), colour_(colour) {}

  void Write(Level level, std::string_view message, const Fields& fields = {});
  void Info(std::string_view message, const Fields& fields = {}) { Write(Level::kInfo, message, fields); }
  void Warning(std::string_view message, const Fields& fields = {}) { Write(Level::kWarning, message, fields); }
  void Error(std::string_view message, const Fields& fields = {}) { Write(Level::kError, message, fields); }

  Format format() const { return format_; }

 private:
  std::string TextLine(Level level, std::string_view message, const Fields& fields) const;
  std::string JsonLine(Level level, std::string_view message, const Fields& fields) const;

  const Format format_;
  std::FILE* const out_;
  const bool colour_;
  std::mutex mu_;  // lines stay whole
};

// Adds how a call failed, if it did. Messages of INVALID_ARGUMENT quote what was sent: with `log_prompts` only.
void AddError(const absl::Status& status, bool log_prompts, Log::Fields* fields);

// `text` as a JSON string with its quotes; bytes that are not UTF-8 become U+FFFD.
std::string JsonString(std::string_view text);

}  // namespace statehouse
