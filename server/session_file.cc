#include "server/session_file.h"

#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"

namespace statehouse {
namespace {

using Json = nlohmann::ordered_json;

static_assert(std::endian::native == std::endian::little, "files are little-endian");
constexpr std::string_view kMagic = "SHSESS01";
constexpr size_t kSnapshotAlignment = 64;
constexpr size_t kSectionHead = 16;  // u64 bytes, u64 XXH3-64
// Parsing JSON takes many times its bytes of memory.
constexpr size_t kMaxDescription = size_t{16} << 20;

absl::Status NoMemory() { return absl::ResourceExhaustedError("too little memory for the session's file"); }

void PutHead(std::span<const std::byte> section, std::byte* to) {
  const uint64_t head[2] = {section.size(), XXH3_64bits(section.data(), section.size())};
  std::memcpy(to, head, sizeof(head));
}

absl::Status AddSection(std::span<const std::byte> section, ByteBuffer* file) {
  std::byte head[kSectionHead];
  PutHead(section, head);
  return file->Append(head) && file->Append(section) ? absl::OkStatus() : NoMemory();
}

absl::Status Damaged(std::string_view what) {
  return absl::DataLossError(absl::StrCat("the session file is damaged: ", std::string(what)));
}

// Takes the next section off `rest`.
absl::StatusOr<std::span<const std::byte>> TakeSection(std::string_view name, std::span<const std::byte>* rest) {
  uint64_t head[2];
  if (rest->size() < kSectionHead) return Damaged(absl::StrCat("it ends before its section ", std::string(name)));
  std::memcpy(head, rest->data(), sizeof(head));
  *rest = rest->subspan(kSectionHead);
  if (rest->size() < head[0]) return Damaged(absl::StrCat("it ends in its section ", std::string(name)));
  const std::span<const std::byte> section = rest->first(head[0]);
  if (XXH3_64bits(section.data(), section.size()) != head[1]) {
    return Damaged(absl::StrCat("checksum of section ", std::string(name)));
  }
  *rest = rest->subspan(head[0]);
  return section;
}

Json Describe(const SessionImage& image) {
  Json turns = Json::array();
  for (const TurnSpan& turn : image.turns) {
    if (turn.end == turn.input_begin) continue;  // it says nothing, and readers refuse it
    turns.push_back({turn.input_begin, turn.answer_begin, turn.end, turn.seed});
  }
  return {{"format", 1},
          {"name", image.spec.name},
          {"labels", image.spec.labels},
          {"num_tokens", image.tokens.size()},
          {"turns", std::move(turns)},
          {"has_snapshot", image.snapshot != nullptr}};
}

// Everything that is used is checked: the file may come from anywhere.
absl::Status ReadTurns(const Json& turns, int64_t num_tokens, std::vector<TurnSpan>* out) {
  int64_t end = 0;
  for (const Json& turn : turns) {
    if (!turn.is_array() || turn.size() != 4) return Damaged("a turn is no list of 4 numbers");
    for (const Json& number : turn) {
      if (!number.is_number_unsigned()) return Damaged("a turn holds something else than numbers");
    }
    const TurnSpan span = {turn[0].get<int64_t>(), turn[1].get<int64_t>(), turn[2].get<int64_t>(),
                           turn[3].get<uint64_t>()};
    const bool ascends =
        end <= span.input_begin && span.input_begin <= span.answer_begin && span.answer_begin <= span.end;
    if (!ascends || span.end > num_tokens) return Damaged("the turns do not follow on each other");
    if (span.end == span.input_begin) return Damaged("a turn holds no tokens");
    end = span.end;
    out->push_back(span);
  }
  return absl::OkStatus();
}

absl::Status ReadDescription(std::span<const std::byte> section, SessionImage* image, int64_t* num_tokens,
                             bool* has_snapshot) {
  if (section.size() > kMaxDescription) {
    return Damaged(absl::StrCat("its description has ", section.size(), " bytes; at most ", kMaxDescription));
  }
  const auto* const text = reinterpret_cast<const char*>(section.data());
  const Json json = Json::parse(text, text + section.size(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("format") || json["format"] != 1) {
    return Damaged("it is of another format; expected format 1");
  }
  for (const char* key : {"num_tokens", "turns", "has_snapshot", "name", "labels"}) {
    if (!json.contains(key)) return Damaged(absl::StrCat("it does not say its ", key));
  }
  const bool is_typed = json["num_tokens"].is_number_unsigned() && json["turns"].is_array() &&
                        json["has_snapshot"].is_boolean() && json["name"].is_string() && json["labels"].is_object();
  if (!is_typed) return Damaged("its description has a field of another type");
  *num_tokens = json["num_tokens"].get<int64_t>();
  if (*num_tokens < 0) return Damaged("its number of tokens");
  *has_snapshot = json["has_snapshot"].get<bool>();
  image->spec.name = json["name"].get<std::string>();
  for (const auto& [key, value] : json["labels"].items()) {
    if (!value.is_string()) return Damaged("a label is no text");
    image->spec.labels[key] = value.get<std::string>();
  }
  return ReadTurns(json["turns"], *num_tokens, &image->turns);
}

absl::Status ReadTokens(std::span<const std::byte> section, int64_t num_tokens, int64_t vocab_size,
                        std::vector<int32_t>* tokens) {
  const bool fits =
      section.size() % sizeof(int32_t) == 0 && section.size() / sizeof(int32_t) == static_cast<size_t>(num_tokens);
  if (!fits) return Damaged("its number of tokens");
  tokens->resize(static_cast<size_t>(num_tokens));
  if (!section.empty()) std::memcpy(tokens->data(), section.data(), section.size());
  for (const int32_t id : *tokens) {
    if (id < 0 || id >= vocab_size) {
      return absl::FailedPreconditionError(
          absl::StrCat("vocab_size: the file holds the token id ", id, ", here ids end at ", vocab_size - 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SessionFile> WriteSessionFile(const SessionImage& image, const Fingerprint& here,
                                             const SnapshotFileOptions& options) {
  SessionFile file;
  std::string description = Describe(image).dump(-1, ' ', false, Json::error_handler_t::replace);
  // Blanks, so that the snapshot's numbers are aligned in the file.
  const size_t before = kMagic.size() + 3 * kSectionHead + description.size() + image.tokens.size() * sizeof(int32_t);
  description.append(-before % kSnapshotAlignment, ' ');
  if (!file.bytes.Append(std::as_bytes(std::span(kMagic)))) return NoMemory();
  for (const auto section : {std::as_bytes(std::span(description)), std::as_bytes(std::span(image.tokens))}) {
    if (absl::Status status = AddSection(section, &file.bytes); !status.ok()) return status;
  }
  const int64_t head = file.bytes.size();
  if (!file.bytes.Extend(kSectionHead)) return NoMemory();
  file.head_bytes = file.bytes.size();
  if (image.snapshot != nullptr) {
    const absl::Status status = WriteSnapshotInto(*image.snapshot, here, &file.bytes, options);
    if (!status.ok()) return status;
  }
  PutHead(file.bytes.bytes().subspan(static_cast<size_t>(file.head_bytes)), file.bytes.data() + head);
  return file;
}

absl::StatusOr<SessionImage> ReadSessionFile(std::span<const std::byte> file, const Fingerprint& here,
                                             const SlotShape& shape, int64_t vocab_size, bool allow_other_numeric,
                                             SnapshotMemory* memory) {
  if (file.size() < kMagic.size() || std::memcmp(file.data(), kMagic.data(), kMagic.size()) != 0) {
    return absl::DataLossError("this is no session file: it does not begin with SHSESS01");
  }
  std::span<const std::byte> rest = file.subspan(kMagic.size());
  std::span<const std::byte> sections[3];
  constexpr std::string_view kNames[] = {"description", "tokens", "snapshot"};
  for (int i = 0; i < 3; ++i) {
    absl::StatusOr<std::span<const std::byte>> section = TakeSection(kNames[i], &rest);
    if (!section.ok()) return section.status();
    sections[i] = *section;
  }
  if (!rest.empty()) return Damaged("something follows its end");
  SessionImage image;
  int64_t num_tokens = 0;
  bool has_snapshot = false;
  if (absl::Status status = ReadDescription(sections[0], &image, &num_tokens, &has_snapshot); !status.ok()) {
    return status;
  }
  if (absl::Status status = ReadTokens(sections[1], num_tokens, vocab_size, &image.tokens); !status.ok()) {
    return status;
  }
  if (!has_snapshot) return image;
  absl::StatusOr<LoadedSnapshot> loaded =
      ReadSnapshot(sections[2], "snapshot", here, shape, allow_other_numeric, memory);
  if (!loaded.ok()) return loaded.status();
  const std::span<const int32_t> read = loaded->snapshot->tokens();
  if (read.size() > image.tokens.size() || !std::equal(read.begin(), read.end(), image.tokens.begin())) {
    return Damaged("its snapshot is of other tokens");
  }
  image.snapshot = loaded->snapshot;
  image.exactness = loaded->exactness;
  image.numeric_difference = loaded->numeric_difference;
  return image;
}

}  // namespace statehouse
