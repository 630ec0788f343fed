// Reads the fields of one JSON object and remembers the first thing that is wrong with them, so that a reader of a
// config is a list of fields. After an error every method returns the fallback. null counts as absent. Thread-safety:
// one thread.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"

namespace statehouse {

class ConfigReader {
 public:
  // `file` opens every message. REQUIRES: object outlives this.
  ConfigReader(std::string file, const nlohmann::json& object);

  const std::string& file() const { return file_; }
  const absl::Status& status() const { return status_; }
  bool Has(const char* key) const;                     // there and not null
  const nlohmann::json& Value(const char* key) const;  // REQUIRES: Has(key)

  int64_t RequiredInt(const char* key, int64_t low, int64_t high);
  int64_t Int(const char* key, int64_t fallback, int64_t low, int64_t high);
  // `open_low`: the lower bound itself is not allowed.
  std::optional<double> Double(const char* key, double low, double high, bool open_low = false);
  bool Bool(const char* key, bool fallback);
  std::string String(const char* key, std::string_view fallback);

  // INVALID_ARGUMENT "<file>: <key>: <found>; expected <expected>". Kept if it is the first.
  void Invalid(std::string_view key, std::string_view found, std::string_view expected);
  // UNIMPLEMENTED, for options that change the maths: "<file>: <key>: <found> is not supported; expected <expected>".
  void Unsupported(std::string_view key, std::string_view found, std::string_view expected);

 private:
  void Fail(absl::Status status);

  const std::string file_;
  const nlohmann::json& object_;
  absl::Status status_;
};

// A value as it may stand in a message: JSON, shortened.
std::string ShownValue(const nlohmann::json& value);

}  // namespace statehouse
