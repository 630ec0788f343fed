#include "models/tokenizer/detokenizer.h"

#include "models/tokenizer/utf8.h"

namespace statehouse {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

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
