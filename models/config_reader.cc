#include "models/config_reader.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace statehouse {

using nlohmann::json;

std::string ShownValue(const json& value) {
  constexpr size_t kLongest = 80;
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "…";
  return text;
}

ConfigReader::ConfigReader(std::string file, const json& object) : file_(std::move(file)), object_(object) {
  if (!object.is_object()) Fail(absl::InvalidArgumentError(absl::StrCat(file_, ": expected a JSON object")));
}

void ConfigReader::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
}

void ConfigReader::Invalid(std::string_view key, std::string_view found, std::string_view expected) {
  Fail(absl::InvalidArgumentError(
      absl::StrCat(file_, ": ", std::string(key), ": ", std::string(found), "; expected ", std::string(expected))));
}

void ConfigReader::Unsupported(std::string_view key, std::string_view found, std::string_view expected) {
  Fail(absl::UnimplementedError(absl::StrCat(file_, ": ", std::string(key), ": ", std::string(found),
                                             " is not supported; expected ", std::string(expected))));
}

bool ConfigReader::Has(const char* key) const {
  if (!object_.is_object()) return false;
  const auto found = object_.find(key);
  return found != object_.end() && !found->is_null();
}

const json& ConfigReader::Value(const char* key) const { return *object_.find(key); }

int64_t ConfigReader::RequiredInt(const char* key, int64_t low, int64_t high) {
  if (!Has(key)) {
    Invalid(key, "missing", absl::StrCat("an integer from ", low, " to ", high));
    return low;
  }
  return Int(key, low, low, high);
}

int64_t ConfigReader::Int(const char* key, int64_t fallback, int64_t low, int64_t high) {
  if (!Has(key)) return fallback;
  const json& value = Value(key);
  const bool fits = value.is_number_integer() &&
                    !(value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX));
  if (!fits || value.get<int64_t>() < low || value.get<int64_t>() > high) {
    Invalid(key, ShownValue(value), absl::StrCat("an integer from ", low, " to ", high));
    return fallback;
  }
  return value.get<int64_t>();
}

std::optional<double> ConfigReader::Double(const char* key, double low, double high, bool open_low) {
  if (!Has(key)) return std::nullopt;
  const json& value = Value(key);
  const double number = value.is_number() ? value.get<double>() : std::nan("");
  if (!(number >= low && number <= high) || (open_low && number == low)) {
    Invalid(key, ShownValue(value), absl::StrCat("a number ", open_low ? "above " : "from ", low, " to ", high));
    return std::nullopt;
  }
  return number;
}

bool ConfigReader::Bool(const char* key, bool fallback) {
  if (!Has(key)) return fallback;
  const json& value = Value(key);
  if (!value.is_boolean()) {
    Invalid(key, ShownValue(value), "true or false");
    return fallback;
  }
  return value.get<bool>();
}

std::string ConfigReader::String(const char* key, std::string_view fallback) {
  if (!Has(key)) return std::string(fallback);
  const json& value = Value(key);
  if (!value.is_string()) {
    Invalid(key, ShownValue(value), "a string");
    return std::string(fallback);
  }
  return value.get<std::string>();
}

}  // namespace statehouse
