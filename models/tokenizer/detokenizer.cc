#include "models/tokenizer/detokenizer.h"

namespace statehouse {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Number of bytes of the character that starts with `lead`; 0 if none does.
int CharacterLength(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;  // a continuation byte, or an overlong form
  if (lead < 0xE0) return 2;
  if (lead < 0xF0) return 3;
  return lead < 0xF5 ? 4 : 0;
}

// Whether `byte` may follow `lead` as the second byte (Unicode 15, table 3-7).
bool IsSecondByte(unsigned char lead, unsigned char byte) {
  switch (lead) {
    case 0xE0:
      return byte >= 0xA0 && byte <= 0xBF;  // no overlong forms
    case 0xED:
      return byte >= 0x80 && byte <= 0x9F;  // no surrogates
    case 0xF0:
      return byte >= 0x90 && byte <= 0xBF;  // no overlong forms
    case 0xF4:
      return byte >= 0x80 && byte <= 0x8F;  // nothing above U+10FFFF
    default:
      return byte >= 0x80 && byte <= 0xBF;
  }
}

}  // namespace

void Detokenizer::Append(int32_t id, std::string* out) {
  if (vocabulary_->IsSpecial(id)) {
    if (rules_.special_ends_character) Flush(out);
    if (show_special_) AppendBytes(vocabulary_->TokenName(id), out);
    return;
  }
  const std::string_view bytes = vocabulary_->TokenBytes(id);
  if (!at_start_) return AppendBytes(bytes, out);
  const std::string_view first_bytes = vocabulary_->FirstTokenBytes(id);
  if (first_bytes.size() < bytes.size() && rules_.start == DecodeRules::Start::kFirstSpace) at_start_ = false;
  AppendBytes(first_bytes, out);
}

void Detokenizer::AppendBytes(std::string_view bytes, std::string* out) {
  if (!bytes.empty()) at_start_ = false;
  size_t begin = 0;
  while (begin < bytes.size()) {
    size_t end = begin;
    if (num_pending_ == 0) {
      while (end < bytes.size() && static_cast<unsigned char>(bytes[end]) < 0x80) ++end;
      out->append(bytes.data() + begin, end - begin);
    }
    if (end < bytes.size()) AppendByte(static_cast<unsigned char>(bytes[end++]), out);
    begin = end;
  }
}

void Detokenizer::AppendByte(unsigned char byte, std::string* out) {
  if (num_pending_ > 0) {
    const unsigned char lead = static_cast<unsigned char>(pending_[0]);
    const bool fits = num_pending_ == 1 ? IsSecondByte(lead, byte) : (byte & 0xC0) == 0x80;
    if (!fits) Flush(out);
  }
  const int length =
      num_pending_ == 0 ? CharacterLength(byte) : CharacterLength(static_cast<unsigned char>(pending_[0]));
  if (length == 0) {
    out->append(kReplacement);
    return;
  }
  pending_[num_pending_++] = static_cast<char>(byte);
  if (num_pending_ == length) {
    out->append(pending_, static_cast<size_t>(length));
    num_pending_ = 0;
  }
}

void Detokenizer::Flush(std::string* out) {
  if (num_pending_ == 0) return;
  const int count = rules_.invalid == DecodeRules::Invalid::kPerByte ? num_pending_ : 1;
  for (int i = 0; i < count; ++i) out->append(kReplacement);
  num_pending_ = 0;
}

void Detokenizer::Reset() {
  at_start_ = true;
  num_pending_ = 0;
}

}  // namespace statehouse
