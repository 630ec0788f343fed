#include "models/json.h"

#include <fstream>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace statehouse {
namespace {

using nlohmann::json;

// Builds the document itself, so that limits and duplicate keys are seen while reading and not after.
class StrictReader final : public json::json_sax_t {
 public:
  explicit StrictReader(const JsonLimits& limits) : limits_(limits) {}

  bool null() override { return Add(json(nullptr)); }
  bool boolean(bool value) override { return Add(json(value)); }
  bool number_integer(number_integer_t value) override { return Add(json(value)); }
  bool number_unsigned(number_unsigned_t value) override { return Add(json(value)); }
  bool number_float(number_float_t value, const string_t&) override { return Add(json(value)); }
  bool string(string_t& value) override { return Add(json(std::move(value))); }
  bool binary(binary_t&) override { return Fail("binary value"); }
  bool start_object(std::size_t) override { return Open(json::object()); }
  bool start_array(std::size_t) override { return Open(json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    if (open_.back()->contains(name)) return Fail(absl::StrCat("key ", QuotedName(name), " appears twice"));
    key_ = std::move(name);
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const json::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..." : the tag says nothing to a user.
    std::string_view text = error.what();
    if (const size_t end = text.find("] "); end != text.npos) text.remove_prefix(end + 2);
    return Fail(absl::StrCat("not valid JSON (byte ", position, "): ", std::string(text.substr(0, 200))));
  }

  const std::string& error() const { return error_; }
  json TakeRoot() { return std::move(root_); }

 private:
  bool Fail(std::string message) {
    error_ = std::move(message);
    return false;
  }
  // Where a new value goes: the root, the end of the open array, or under the last key of the open object.
  json* Place(json value) {
    if (++num_values_ > limits_.max_values) {
      Fail(absl::StrCat("more than ", limits_.max_values, " values"));
      return nullptr;
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      open_.back()->push_back(std::move(value));
      return &open_.back()->back();
    }
    json& member = (*open_.back())[key_];
    member = std::move(value);
    return &member;
  }
  bool Add(json value) { return Place(std::move(value)) != nullptr; }
  bool Open(json value) {
    if (static_cast<int>(open_.size()) >= limits_.max_depth) {
      return Fail(absl::StrCat("nested deeper than ", limits_.max_depth, " levels"));
    }
    json* place = Place(std::move(value));
    if (place != nullptr) open_.push_back(place);
    return place != nullptr;
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  const JsonLimits limits_;
  json root_;
  std::vector<json*> open_;
  std::string key_;
  std::string error_;
  int64_t num_values_ = 0;
};

}  // namespace

std::string QuotedName(std::string_view name) {
  constexpr size_t kLongest = 160;
  const std::string shown(name.substr(0, kLongest));
  return absl::StrCat("\"", absl::Utf8SafeCHexEscape(shown), name.size() > kLongest ? "…" : "", "\"");
}

absl::StatusOr<json> ParseJson(std::string_view text, const std::string& where, const JsonLimits& limits) {
  StrictReader reader(limits);
  try {
    if (!json::sax_parse(text.begin(), text.end(), &reader)) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": ", reader.error()));
    }
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": not valid JSON: ", error.what()));
  }
  return reader.TakeRoot();
}

absl::StatusOr<json> ReadJsonFile(const std::filesystem::path& file, const JsonLimits& limits) {
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    return absl::NotFoundError(absl::StrCat(file.string(), ": no such file"));
  }
  if (status.type() != std::filesystem::file_type::regular) {
    return absl::InvalidArgumentError(absl::StrCat(file.string(), ": not a regular file"));
  }
  std::ifstream stream(file, std::ios::binary);
  const int64_t size = static_cast<int64_t>(std::filesystem::file_size(file, error));
  if (error || !stream) return absl::InvalidArgumentError(absl::StrCat(file.string(), ": cannot be read"));
  if (size > limits.max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.string(), ": ", size, " bytes; expected at most ", limits.max_bytes));
  }
  std::string text(static_cast<size_t>(size), '\0');
  if (!stream.read(text.data(), size))
    return absl::InvalidArgumentError(absl::StrCat(file.string(), ": cannot be read"));
  return ParseJson(text, file.string(), limits);
}

}  // namespace statehouse
