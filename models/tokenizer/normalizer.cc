#include "models/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "models/json.h"  // QuotedName
#include "models/tokenizer/unicode_tables.h"
#include "models/tokenizer/utf8.h"

namespace statehouse {
namespace {

int CombiningClass(utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; }

// Brings a stretch of text into NFC. utf8proc does it all in one call too, but sorts marks in quadratic time: a
// megabyte of combining marks would take minutes.
class NfcBuffer {
 public:
  void Add(char32_t code) {
    constexpr int kLongest = 8;  // canonical decompositions have at most 4 characters
    utf8proc_int32_t parts[kLongest];
    int boundclass = UTF8PROC_BOUNDCLASS_START;
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), parts, kLongest, kOptions, &boundclass);
    if (count < 0 || count > kLongest) {
      codes_.push_back(static_cast<utf8proc_int32_t>(code));
    } else {
      codes_.insert(codes_.end(), parts, parts + count);
    }
  }

  void Flush(std::string* out) {
    for (size_t begin = 0; begin < codes_.size(); ++begin) {
      if (CombiningClass(codes_[begin]) == 0) continue;
      size_t end = begin;
      while (end < codes_.size() && CombiningClass(codes_[end]) != 0) ++end;
      std::stable_sort(codes_.begin() + static_cast<ptrdiff_t>(begin), codes_.begin() + static_cast<ptrdiff_t>(end),
                       [](utf8proc_int32_t a, utf8proc_int32_t b) { return CombiningClass(a) < CombiningClass(b); });
      begin = end;
    }
    const auto compose = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    const utf8proc_ssize_t length =
        utf8proc_normalize_utf32(codes_.data(), static_cast<utf8proc_ssize_t>(codes_.size()), compose);
    // A negative length is an error, and leaves the (decomposed) codes as they were: nothing may vanish from a prompt.
    const utf8proc_ssize_t count = length < 0 ? static_cast<utf8proc_ssize_t>(codes_.size()) : length;
    for (utf8proc_ssize_t i = 0; i < count; ++i)
      AppendCharacter(static_cast<char32_t>(codes_[static_cast<size_t>(i)]), out);
    codes_.clear();
  }

 private:
  static constexpr auto kOptions = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);
  std::vector<utf8proc_int32_t> codes_;
};

// No character below U+0300 (0xCC 0x80) changes in NFC where no other is near.
bool IsPlain(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char byte) { return static_cast<unsigned char>(byte) < 0xCC; });
}

}  // namespace

Normalizer Normalizer::Nfc() {
  Normalizer normalizer;
  normalizer.nfc_ = true;
  return normalizer;
}

absl::StatusOr<Normalizer> Normalizer::FromJson(const nlohmann::json& node, const std::string& where) {
  if (node.is_null()) return Normalizer();
  const auto type = node.is_object() ? node.find("type") : node.end();
  if (!node.is_object() || type == node.end() || !type->is_string()) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": expected null or an object with a string \"type\""));
  }
  const std::string& name = type->get_ref<const std::string&>();
  if (name == "NFC") return Nfc();
  if (name != "Sequence") {
    return absl::UnimplementedError(
        absl::StrCat(where, ".type: ", QuotedName(name), " is not supported; expected NFC or a Sequence of it"));
  }
  const auto list = node.find("normalizers");
  if (list == node.end() || !list->is_array()) {
    return absl::InvalidArgumentError(absl::StrCat(where, ".normalizers: expected a list"));
  }
  Normalizer all;
  for (size_t i = 0; i < list->size(); ++i) {
    absl::StatusOr<Normalizer> one = FromJson((*list)[i], absl::StrCat(where, ".normalizers[", i, "]"));
    if (!one.ok()) return one.status();
    all.nfc_ = all.nfc_ || one->nfc_;  // NFC twice is NFC
  }
  return all;
}

std::string Normalizer::Normalize(std::string_view text) const {
  if (!nfc_ || IsPlain(text)) return std::string(text);
  std::string out;
  out.reserve(text.size());
  NfcBuffer buffer;
  while (!text.empty()) {
    const int length = FirstCharacterLength(text);
    const char32_t code = length == 0 ? 0 : FirstCharacter(text, length);
    const size_t size = length == 0 ? 1 : static_cast<size_t>(length);
    if (length == 0 || IsUnknownToNfc(code)) {
      buffer.Flush(&out);
      out.append(text.substr(0, size));
    } else {
      buffer.Add(code);
    }
    text.remove_prefix(size);
  }
  buffer.Flush(&out);
  return out;
}

}  // namespace statehouse
