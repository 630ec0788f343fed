#include "engine/sessions/byte_coding.h"

#include <limits>

namespace statehouse {

void ByteWriter::Number(uint64_t value) {
  for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<char>(value | 0x80));
  bytes_.push_back(static_cast<char>(value));
}

void ByteWriter::Text(std::string_view text) {
  Number(text.size());
  bytes_.append(text);
}

void ByteWriter::Tokens(std::span<const int32_t> tokens) {
  Number(tokens.size());
  for (const int32_t token : tokens) Number(static_cast<uint32_t>(token));
}

void ByteWriter::Interval(absl::Duration duration) {
  Flag(duration != absl::InfiniteDuration());
  if (duration != absl::InfiniteDuration()) Signed(absl::ToInt64Microseconds(duration));
}

uint64_t ByteReader::Number() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (rest_.empty()) break;
    const uint8_t byte = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    // The tenth byte has room for one bit; a last byte of zero is a longer spelling of a number: there is one only.
    if ((shift == 63 && byte > 1) || (shift > 0 && byte == 0)) break;
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  Fail();
  return 0;
}

int64_t ByteReader::Signed() {
  const uint64_t value = Number();
  return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1);
}

int64_t ByteReader::Count() {
  const uint64_t value = Number();
  if (value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return static_cast<int64_t>(value);
  Fail();
  return 0;
}

int64_t ByteReader::Length(int64_t least_bytes) {
  const int64_t length = Count();
  if (length <= static_cast<int64_t>(rest_.size()) / least_bytes) return length;
  Fail();
  return 0;
}

bool ByteReader::Flag() {
  const uint64_t value = Number();
  if (value > 1) Fail();
  return value == 1;
}

std::string ByteReader::Text() {
  const size_t length = static_cast<size_t>(Length(1));
  std::string text(rest_.substr(0, length));
  rest_.remove_prefix(length);
  return text;
}

std::vector<int32_t> ByteReader::Tokens() {
  std::vector<int32_t> tokens(static_cast<size_t>(Length(1)));
  for (int32_t& token : tokens) {
    const uint64_t value = Number();
    if (value > static_cast<uint64_t>(std::numeric_limits<int32_t>::max())) Fail();
    token = static_cast<int32_t>(value);
  }
  if (failed_) tokens.clear();
  return tokens;
}

absl::Duration ByteReader::Interval() { return Flag() ? absl::Microseconds(Signed()) : absl::InfiniteDuration(); }

}  // namespace statehouse
