// How records are put into bytes: little-endian base-128 integers, strings and lists with their length before them.
// A reader never trusts a length: after the first thing that does not fit it fails for good and yields zeros.
// Thread-safety: one thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"

namespace statehouse {

class ByteWriter {
 public:
  void Number(uint64_t value);
  void Signed(int64_t value) { Number((static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63)); }
  void Flag(bool value) { bytes_.push_back(value ? '\1' : '\0'); }
  void Text(std::string_view text);
  void Tokens(std::span<const int32_t> tokens);
  void Time(absl::Time time) { Signed(absl::ToUnixMicros(time)); }
  void Interval(absl::Duration duration);  // infinite: stays so
  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}

  uint64_t Number();
  int64_t Signed();
  // A number in [0, INT64_MAX].
  int64_t Count();
  // A number of things that follow, of at least `least_bytes` each.
  int64_t Length(int64_t least_bytes);
  bool Flag();
  std::string Text();
  std::vector<int32_t> Tokens();
  absl::Time Time() { return absl::FromUnixMicros(Signed()); }
  absl::Duration Interval();
  void Fail() {
    failed_ = true;
    rest_ = {};
  }
  bool failed() const { return failed_; }
  // Everything was read, and all of it fitted.
  bool finished() const { return !failed_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool failed_ = false;
};

}  // namespace statehouse
