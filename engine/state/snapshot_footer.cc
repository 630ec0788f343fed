#include "engine/state/snapshot_footer.h"

#include <charconv>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/state/snapshot_format.h"
#include "models/json.h"

namespace statehouse {

using kernels::HeadExtent;
using namespace snapshot_format;  // NOLINT(google-build-using-namespace): a few constants

namespace {

uint64_t NumberAt(std::span<const std::byte> bytes, size_t offset) {
  uint64_t number = 0;
  std::memcpy(&number, bytes.data() + offset, sizeof(number));
  return number;
}

bool Holds(std::span<const std::byte> bytes, std::string_view text) {
  return bytes.size() == text.size() && std::memcmp(bytes.data(), text.data(), text.size()) == 0;
}

}  // namespace

absl::Status SnapshotFooter::Damaged(const std::string& what) const {
  return absl::DataLossError(absl::StrCat(name_, ": the snapshot is damaged: ", what));
}

absl::StatusOr<SnapshotFooter> SnapshotFooter::Read(const ByteSource& file, const std::string& name) {
  SnapshotFooter footer(name);
  if (absl::Status status = footer.Parse(file); !status.ok()) return status;
  return footer;
}

absl::Status SnapshotFooter::Parse(const ByteSource& file) {
  const int64_t magic_bytes = static_cast<int64_t>(kMagic.size());
  if (file.size() < magic_bytes + kTrailerBytes) return Damaged(absl::StrCat(file.size(), " bytes are too few"));
  std::byte first[kMagic.size()], last[kTrailerBytes];
  const auto magic = file.View(0, first);
  if (!magic.ok()) return magic.status();
  if (!Holds(*magic, kMagic)) return Damaged("it does not begin as one (another file, or another version)");
  const auto trailer = file.View(file.size() - kTrailerBytes, last);
  if (!trailer.ok()) return trailer.status();
  if (!Holds(trailer->subspan(16), kEndMagic)) return Damaged("it does not end as one; it was cut off");
  const uint64_t footer_bytes = NumberAt(*trailer, 0);
  const int64_t room = file.size() - magic_bytes - kTrailerBytes;
  if (footer_bytes > static_cast<uint64_t>(room)) return Damaged(absl::StrCat("a footer of ", footer_bytes, " bytes"));
  sections_end_ = file.size() - kTrailerBytes - static_cast<int64_t>(footer_bytes);
  std::vector<std::byte> scratch(footer_bytes);
  const auto text = file.View(sections_end_, scratch);
  if (!text.ok()) return text.status();
  if (Checksum(*text) != NumberAt(*trailer, 8)) return Damaged("the footer's checksum does not fit");
  auto parsed = ParseJson({reinterpret_cast<const char*>(text->data()), text->size()}, name_);
  if (!parsed.ok()) return Damaged(std::string(parsed.status().message()));
  footer_ = *std::move(parsed);
  int64_t format = 0;
  if (absl::Status status = Integer(footer_, "format", &format); !status.ok()) return status;
  if (format != kExactVersion && format != kEncodedVersion) {
    return Damaged(absl::StrCat("format ", format, "; this build reads 1 and 2"));
  }
  return ReadEncoding(format);
}

absl::StatusOr<Fingerprint> SnapshotFooter::ReadFingerprint() const {
  Fingerprint fingerprint;
  Identity& identity = fingerprint.identity;
  const auto& object = footer_.find("identity");
  const auto& numeric = footer_.find("numeric");
  if (object == footer_.end() || !object->is_object() || numeric == footer_.end() || !numeric->is_object()) {
    return Damaged("no identity and numeric mode");
  }
  int64_t heads_q = 0, heads_kv = 0, head_dim = 0, degree = 0;
  double scale = 0;
  for (const absl::Status& status :
       {HexNumber(*object, "weights", &identity.weights), HexNumber(*object, "tokenizer", &identity.tokenizer),
        Text(*object, "adapter", &identity.adapter), Integer(*object, "num_layers", &identity.num_layers),
        Integer(*object, "vocab_size", &identity.vocab_size), Integer(*object, "heads_q", &heads_q),
        Integer(*object, "heads_kv", &heads_kv), Integer(*object, "head_dim", &head_dim),
        Integer(*object, "degree", &degree), Number(*object, "scale", &scale),
        Number(*object, "rope_theta", &identity.rope_theta), Integer(*object, "chunk", &identity.chunk),
        Integer(*object, "switch_over", &identity.switch_over), Text(*numeric, "device", &fingerprint.numeric.device),
        Text(*numeric, "arithmetic", &fingerprint.numeric.arithmetic),
        Text(*numeric, "weights", &fingerprint.numeric.weights), Text(*numeric, "state", &fingerprint.numeric.state)}) {
    if (!status.ok()) return status;
  }
  identity.heads_q = static_cast<int>(heads_q);
  identity.heads_kv = static_cast<int>(heads_kv);
  identity.head_dim = static_cast<int>(head_dim);
  identity.degree = static_cast<int>(degree);
  identity.scale = static_cast<float>(scale);
  return fingerprint;
}

absl::Status SnapshotFooter::ReadEncoding(int64_t format) {
  may_be_compressed_ = format == kEncodedVersion;
  const auto found = footer_.find("encoding");
  if (found == footer_.end()) return absl::OkStatus();
  std::string name;
  if (format != kEncodedVersion || !found->is_object()) return Missing("encoding");
  if (absl::Status status = Text(*found, "state", &name); !status.ok()) return status;
  for (const StateEncoding known : {StateEncoding::kBf16, StateEncoding::kInt8}) {
    if (name != StateEncodingName(known)) continue;
    encoding_ = known;
    return absl::OkStatus();
  }
  return Damaged(absl::StrCat("a state stored as \"", name, "\"; this build reads bf16 and int8"));
}

absl::Status SnapshotFooter::Missing(const char* key) const { return Damaged(absl::StrCat("no usable \"", key, "\"")); }

absl::Status SnapshotFooter::Integer(const nlohmann::json& object, const char* key, int64_t* out) const {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_integer()) return Missing(key);
  if (found->is_number_unsigned() && found->get<uint64_t>() > INT64_MAX) return Missing(key);
  *out = found->get<int64_t>();
  return absl::OkStatus();
}

absl::Status SnapshotFooter::Number(const nlohmann::json& object, const char* key, double* out) const {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number()) return Missing(key);
  *out = found->get<double>();
  return absl::OkStatus();
}

absl::Status SnapshotFooter::Text(const nlohmann::json& object, const char* key, std::string* out) const {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string()) return Missing(key);
  *out = found->get<std::string>();
  return absl::OkStatus();
}

absl::Status SnapshotFooter::HexNumber(const nlohmann::json& object, const char* key, uint64_t* out) const {
  std::string text;
  if (absl::Status status = Text(object, key, &text); !status.ok()) return status;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), *out, 16);
  const bool whole = text.size() == 16 && parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
  return whole ? absl::OkStatus() : Missing(key);
}

absl::Status SnapshotFooter::ReadPoint(const SlotShape& shape, SnapshotPoint* point,
                                       std::vector<HeadExtent>* extents) const {
  constexpr int64_t kMostTokens = int64_t{1} << 40;
  if (absl::Status status = Integer(footer_, "position", &point->position); !status.ok()) return status;
  if (absl::Status status = Integer(footer_, "switch_units", &point->switch_units); !status.ok()) return status;
  const auto switched = footer_.find("switched");
  if (switched == footer_.end() || !switched->is_boolean()) return Missing("switched");
  point->switched = switched->get<bool>();
  if (point->position < 1 || point->position > kMostTokens) return Missing("position");
  if (point->switch_units < 0 || point->switch_units > shape.num_regions()) return Missing("switch_units");

  const auto list = footer_.find("extents");
  const auto sections = footer_.find("sections");
  if (sections == footer_.end() || !sections->is_array()) return Missing("sections");
  if (list == footer_.end() || !list->is_array() || static_cast<int64_t>(list->size()) != shape.num_regions()) {
    return Missing("extents");
  }
  int64_t in_state_form = 0;
  for (const nlohmann::json& entry : *list) {
    if (!entry.is_array() || entry.size() != 3) return Missing("extents");
    for (const nlohmann::json& number : entry) {
      if (!number.is_number_unsigned() || number.get<uint64_t>() > uint64_t{kMostTokens}) return Missing("extents");
    }
    const HeadExtent extent = {entry[0].get<int>() == 1, entry[1].get<int64_t>(), entry[2].get<int64_t>()};
    if (absl::Status status = kernels::CheckExtent(shape.layout, extent); !status.ok()) {
      return Damaged(std::string(status.message()));
    }
    if (extent.folded + extent.num_rows != point->position) return Damaged("extents that end at another position");
    in_state_form += extent.state_form;
    extents->push_back(extent);
  }
  return CheckForm(shape, *point, in_state_form);
}

// The engine's view of the switch-over and the regions' own must agree.
absl::Status SnapshotFooter::CheckForm(const SlotShape& shape, const SnapshotPoint& point,
                                       int64_t in_state_form) const {
  const kernels::RetentionShape& retention = shape.layout.shape();
  if (!shape.layout.has_switch_over())
    return point.switched || point.switch_units > 0 ? Missing("switched") : absl::OkStatus();
  const bool fits = in_state_form == point.switch_units && point.switched == (in_state_form == shape.num_regions()) &&
                    (in_state_form == 0 || point.position >= retention.switch_over) &&
                    (point.switched || point.position <= retention.switch_over);
  return fits ? absl::OkStatus() : Damaged("a switch-over that does not fit its position");
}

bool SnapshotFooter::NextIs(const std::string& section) const {
  const nlohmann::json& list = footer_.at("sections");
  if (next_section_ >= list.size() || !list[next_section_].is_object()) return false;
  const auto found = list[next_section_].find("name");
  return found != list[next_section_].end() && found->is_string() && found->get<std::string>() == section;
}

absl::StatusOr<SnapshotSection> SnapshotFooter::Take(const std::string& section, const char* dtype, int64_t count,
                                                     int64_t each_bytes) {
  if (!NextIs(section)) return Damaged(absl::StrCat("no section \"", section, "\" in its place"));
  const nlohmann::json& entry = footer_.at("sections")[next_section_++];
  SnapshotSection taken = {.name = section, .raw_bytes = count * each_bytes};
  std::string stored_dtype;
  int64_t stored_count = 0;
  for (const absl::Status& status : {Text(entry, "dtype", &stored_dtype), Integer(entry, "count", &stored_count),
                                     Integer(entry, "offset", &taken.offset), Integer(entry, "bytes", &taken.bytes),
                                     HexNumber(entry, "xxh3", &taken.checksum)}) {
    if (!status.ok()) return status;
  }
  // The sizes of all others are bounded by the model's: no small file can ask for much memory.
  taken.compressed = may_be_compressed_ && entry.contains("codec") && section != kTokens;
  if (taken.compressed) {
    std::string codec;
    if (absl::Status status = Text(entry, "codec", &codec); !status.ok()) return status;
    if (codec != kZstd) return Damaged(absl::StrCat("section \"", section, "\" is packed as \"", codec, "\""));
  }
  const bool fits =
      stored_dtype == dtype && stored_count == count &&
      (taken.compressed ? taken.bytes > 0 && taken.bytes < taken.raw_bytes : taken.bytes == taken.raw_bytes) &&
      taken.offset >= static_cast<int64_t>(kMagic.size()) && taken.offset % kAlignment == 0 &&
      taken.offset <= sections_end_ && taken.bytes <= sections_end_ - taken.offset;
  if (!fits) return Damaged(absl::StrCat("section \"", section, "\" has another type, size or place"));
  return taken;
}

absl::Status SnapshotFooter::CheckEnd() const {
  return next_section_ == footer_.at("sections").size() ? absl::OkStatus()
                                                        : Damaged("sections that do not belong to it");
}

}  // namespace statehouse
