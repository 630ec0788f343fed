#include "models/tokenizer/sentencepiece_model.h"

#include <cmath>
#include <cstring>
#include <functional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "models/json.h"  // QuotedName
#include "models/tokenizer/token_table.h"
#include "models/tokenizer/utf8.h"

namespace statehouse {
namespace {

constexpr size_t kLongestPiece = 4096;

absl::Status Invalid(const std::string& where, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
}

// One field of a Protocol Buffers message.
struct Field {
  uint64_t number = 0;
  uint64_t value = 0;     // varint and fixed-size fields
  std::string_view data;  // fields with a length
  bool has_length = false;
};

// Reads the fields of a message in order.
class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : rest_(bytes) {}
  bool AtEnd() const { return rest_.empty(); }

  // False if the bytes are no message.
  bool Next(Field* field) {
    uint64_t tag = 0;
    if (!Varint(&tag) || (tag >> 3) == 0) return false;
    *field = {};
    field->number = tag >> 3;
    switch (tag & 7) {
      case 0:
        return Varint(&field->value);
      case 1:
        return Fixed(8, &field->value);
      case 2: {
        uint64_t size = 0;
        if (!Varint(&size) || size > rest_.size()) return false;
        field->has_length = true;
        field->data = rest_.substr(0, static_cast<size_t>(size));
        rest_.remove_prefix(static_cast<size_t>(size));
        return true;
      }
      case 5:
        return Fixed(4, &field->value);
      default:
        return false;
    }
  }

 private:
  bool Varint(uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) return false;
      const unsigned char byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      *value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }
  bool Fixed(size_t size, uint64_t* value) {
    if (rest_.size() < size) return false;
    *value = 0;
    std::memcpy(value, rest_.data(), size);  // little-endian, as the format and every machine this runs on
    rest_.remove_prefix(size);
    return true;
  }

  std::string_view rest_;
};

using OnField = std::function<absl::Status(const Field&)>;

absl::Status ForEachField(std::string_view bytes, const std::string& where, const OnField& on_field) {
  WireReader reader(bytes);
  Field field;
  while (!reader.AtEnd()) {
    if (!reader.Next(&field)) return Invalid(where, "not a SentencePiece model: malformed Protocol Buffers message");
    if (absl::Status status = on_field(field); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// "<0x0A>"
bool ReadBytePiece(std::string_view text, unsigned char* byte) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  if (text.size() != 6 || !text.starts_with("<0x") || text.back() != '>') return false;
  const size_t high = kDigits.find(text[3]);
  const size_t low = kDigits.find(text[4]);
  if (high == kDigits.npos || low == kDigits.npos) return false;
  *byte = static_cast<unsigned char>(high << 4 | low);
  return true;
}

absl::Status ReadPiece(std::string_view bytes, const std::string& where, SentencePieceModel* model) {
  using Type = SentencePieceModel::Type;
  SentencePieceModel::Piece piece;
  uint64_t type = static_cast<uint64_t>(Type::kNormal);
  float score = 0;
  absl::Status status = ForEachField(bytes, where, [&](const Field& field) {
    if (field.number == 1 && field.has_length) piece.text = field.data;
    if (field.number == 2 && !field.has_length) {
      const uint32_t bits = static_cast<uint32_t>(field.value);
      std::memcpy(&score, &bits, sizeof(score));
    }
    if (field.number == 3 && !field.has_length) type = field.value;
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  if (piece.text.empty() || piece.text.size() > kLongestPiece || WellFormedPrefix(piece.text) != piece.text.size() ||
      piece.text.find('\0') != piece.text.npos) {
    return Invalid(where, absl::StrCat("piece: ", QuotedName(piece.text), "; expected 1 to ", kLongestPiece,
                                       " bytes of UTF-8 without NUL"));
  }
  if (!std::isfinite(score)) return Invalid(where, "score: not a finite number");
  if (type < static_cast<uint64_t>(Type::kNormal) || type > static_cast<uint64_t>(Type::kByte)) {
    return Invalid(where, absl::StrCat("type: ", type, "; expected 1 to 6"));
  }
  piece.type = static_cast<Type>(type);
  if (piece.type == Type::kByte && !ReadBytePiece(piece.text, &piece.byte)) {
    return Invalid(where, absl::StrCat("piece: ", QuotedName(piece.text), "; expected the form <0x0A> for type BYTE"));
  }
  model->pieces.push_back(piece);
  return absl::OkStatus();
}

// The replacements of a normalizer: a double-array trie (Darts) of what is replaced, whose values are places in the
// text of replacements, each ended by NUL. The library follows offsets and places unchecked; here all that can be
// reached are.
class CharsMapChecker {
 public:
  bool IsSafe(std::string_view map) {
    uint32_t trie_size = 0;
    if (map.size() <= sizeof(trie_size)) return false;
    std::memcpy(&trie_size, map.data(), sizeof(trie_size));
    map.remove_prefix(sizeof(trie_size));
    if (trie_size >= map.size() || trie_size % sizeof(uint32_t) != 0 || trie_size == 0) return false;
    units_.resize(trie_size / sizeof(uint32_t));
    std::memcpy(units_.data(), map.data(), trie_size);
    replacements_ = map.substr(trie_size);
    return replacements_.back() == '\0' && WalkAll();
  }

 private:
  static uint32_t Label(uint32_t unit) { return unit & (1U << 31 | 0xFF); }
  static uint32_t Offset(uint32_t unit) { return (unit >> 10) << ((unit & (1U << 9)) >> 6); }
  static bool HasLeaf(uint32_t unit) { return ((unit >> 8) & 1) == 1; }

  bool WalkAll() {
    std::vector<bool> seen(units_.size());
    std::vector<uint32_t> open = {0};
    seen[0] = true;
    while (!open.empty()) {
      const uint32_t at = open.back();
      open.pop_back();
      const uint32_t base = at ^ Offset(units_[at]);
      if ((base | 0xFF) >= units_.size()) return false;  // some next byte would be looked up past the end
      if (HasLeaf(units_[at]) && (units_[base] & 0x7FFFFFFF) >= replacements_.size()) return false;
      for (uint32_t byte = 0; byte < 256; ++byte) {
        const uint32_t next = base ^ byte;
        if (Label(units_[next]) != byte || seen[next]) continue;
        seen[next] = true;
        open.push_back(next);
      }
    }
    return true;
  }

  std::vector<uint32_t> units_;
  std::string_view replacements_;
};

absl::Status ReadNormalizer(std::string_view bytes, const std::string& where, SentencePieceModel* model) {
  return ForEachField(bytes, where, [&](const Field& field) {
    if (field.number == 2 && field.has_length && !field.data.empty() && !CharsMapChecker().IsSafe(field.data)) {
      return Invalid(where, "precompiled_charsmap: malformed");
    }
    if (field.number == 3 && !field.has_length) model->add_dummy_prefix = field.value != 0;
    if (field.number == 4 && !field.has_length) model->remove_extra_whitespaces = field.value != 0;
    return absl::OkStatus();
  });
}

absl::Status ReadTrainer(std::string_view bytes, const std::string& where) {
  return ForEachField(bytes, where, [&](const Field& field) {
    if (field.number == 3 && !field.has_length && field.value != 1 && field.value != 2) {
      return absl::UnimplementedError(
          absl::StrCat(where, ".model_type: ", field.value, " is not supported; expected 1 (unigram) or 2 (BPE)"));
    }
    return absl::OkStatus();
  });
}

absl::Status ReadDenormalizer(std::string_view bytes, const std::string& where) {
  return ForEachField(bytes, where, [&](const Field& field) {
    if (field.number == 2 && !field.data.empty()) {
      return absl::UnimplementedError(absl::StrCat(where, ": a text that changes as a whole cannot be streamed"));
    }
    return absl::OkStatus();
  });
}

}  // namespace

absl::StatusOr<SentencePieceModel> ReadSentencePieceModel(std::string_view bytes, const std::string& where) {
  SentencePieceModel model;
  const absl::Status status = ForEachField(bytes, where, [&](const Field& field) {
    if (field.number >= 1 && field.number <= 5 && !field.has_length) {
      return Invalid(where, "not a SentencePiece model: malformed Protocol Buffers message");
    }
    switch (field.number) {
      case 1:
        if (static_cast<int64_t>(model.pieces.size()) > TokenTable::kLargestId)
          return Invalid(where, "too many pieces");
        return ReadPiece(field.data, absl::StrCat(where, ": pieces[", model.pieces.size(), "]"), &model);
      case 2:
        return ReadTrainer(field.data, where + ": trainer_spec");
      case 3:
        return ReadNormalizer(field.data, where + ": normalizer_spec", &model);
      case 5:
        return ReadDenormalizer(field.data, where + ": denormalizer_spec");
      default:
        return absl::OkStatus();
    }
  });
  if (!status.ok()) return status;
  if (model.pieces.empty()) return Invalid(where, "not a SentencePiece model: no pieces");
  return model;
}

std::string WithoutDummyPrefix(std::string_view bytes) {
  // Messages that follow one another are merged, so another normalizer_spec (field 3) that holds only add_dummy_prefix
  // (field 3) changes nothing else.
  constexpr std::string_view kOff("\x1A\x02\x18\x00", 4);
  std::string changed(bytes);
  changed += kOff;
  return changed;
}

}  // namespace statehouse
