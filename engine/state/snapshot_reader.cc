#include <zstd.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/state/snapshot_encoding.h"
#include "engine/state/snapshot_file.h"
#include "engine/state/snapshot_format.h"
#include "kernels/power_retention/canonical.h"
#include "models/json.h"

namespace statehouse {
namespace {

using kernels::HeadExtent;
using namespace snapshot_format;  // NOLINT(google-build-using-namespace): a few constants

static_assert(std::endian::native == std::endian::little, "files are little-endian, and so is this code");

// Reads one file; every method checks what it takes.
class Reader {
 public:
  Reader(std::span<const std::byte> file, const std::string& name) : file_(file), name_(name) {}

  absl::Status Damaged(const std::string& what) const {
    return absl::DataLossError(absl::StrCat(name_, ": the snapshot is damaged: ", what));
  }

  absl::Status ReadFooter() {
    const int64_t size = static_cast<int64_t>(file_.size());
    if (size < static_cast<int64_t>(kMagic.size()) + kTrailerBytes) {
      return Damaged(absl::StrCat(size, " bytes are too few"));
    }
    if (!Matches(0, kMagic)) return Damaged("it does not begin as one (another file, or another version)");
    if (!Matches(size - 8, kEndMagic)) return Damaged("it does not end as one; it was cut off");
    const uint64_t footer_bytes = NumberAt(size - kTrailerBytes);
    const uint64_t room = file_.size() - kMagic.size() - kTrailerBytes;
    if (footer_bytes > room) return Damaged(absl::StrCat("a footer of ", footer_bytes, " bytes"));
    const auto footer = file_.subspan(file_.size() - kTrailerBytes - footer_bytes, footer_bytes);
    if (Checksum(footer) != NumberAt(size - 16)) {
      return Damaged("the footer's checksum does not fit");
    }
    sections_end_ = file_.size() - kTrailerBytes - footer_bytes;
    auto parsed = ParseJson({reinterpret_cast<const char*>(footer.data()), footer.size()}, name_);
    if (!parsed.ok()) return Damaged(std::string(parsed.status().message()));
    footer_ = *std::move(parsed);
    int64_t format = 0;
    if (absl::Status status = Integer(footer_, "format", &format); !status.ok()) return status;
    if (format != kExactVersion && format != kEncodedVersion) {
      return Damaged(absl::StrCat("format ", format, "; this build reads 1 and 2"));
    }
    return ReadEncoding(format);
  }
  StateEncoding encoding() const { return encoding_; }

  absl::StatusOr<Fingerprint> ReadFingerprint() const {
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
          Text(*numeric, "weights", &fingerprint.numeric.weights),
          Text(*numeric, "state", &fingerprint.numeric.state)}) {
      if (!status.ok()) return status;
    }
    identity.heads_q = static_cast<int>(heads_q);
    identity.heads_kv = static_cast<int>(heads_kv);
    identity.head_dim = static_cast<int>(head_dim);
    identity.degree = static_cast<int>(degree);
    identity.scale = static_cast<float>(scale);
    return fingerprint;
  }

  // REQUIRES: the identity is that of `shape`.
  absl::StatusOr<std::shared_ptr<const Snapshot>> ReadContents(const SlotShape& shape, int64_t vocab_size) {
    SnapshotPoint point;
    std::vector<HeadExtent> extents;
    if (absl::Status status = ReadPoint(shape, &point, &extents); !status.ok()) return status;
    auto tokens = Section<int32_t>(std::string(kTokens), "I32", point.position);
    if (!tokens.ok()) return tokens.status();
    for (const int32_t token : *tokens) {
      if (token < 0 || token >= vocab_size) return Damaged(absl::StrCat("token id ", token));
    }
    std::vector<float> logits;
    if (HasSection("logits")) {
      auto section = Section<float>("logits", "F32", vocab_size);
      if (!section.ok()) return section.status();
      logits = *std::move(section);
    }
    for (const HeadExtent& extent : extents) {
      point.used_floats = std::max(point.used_floats, kernels::RegionFloats(shape.layout, extent));
    }
    kernels::AlignedBuffer regions;
    if (!regions.Allocate(point.used_floats * shape.num_regions() * static_cast<int64_t>(sizeof(float)))) {
      return absl::ResourceExhaustedError(absl::StrCat(name_, ": too little memory to load the snapshot"));
    }
    if (absl::Status status = ReadLayers(shape, point, extents, regions.as<float>()); !status.ok()) return status;
    if (next_section_ != SectionList().size()) return Damaged("sections that do not belong to it");
    return std::make_shared<const Snapshot>(shape, point, std::move(regions), std::move(logits), *std::move(tokens));
  }

 private:
  absl::Status ReadEncoding(int64_t format) {
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

  bool Matches(int64_t offset, std::string_view text) const {
    return std::memcmp(file_.data() + offset, text.data(), text.size()) == 0;
  }
  uint64_t NumberAt(int64_t offset) const {
    uint64_t number = 0;
    std::memcpy(&number, file_.data() + offset, sizeof(number));
    return number;
  }
  const nlohmann::json& SectionList() const { return footer_.at("sections"); }

  absl::Status Missing(const char* key) const { return Damaged(absl::StrCat("no usable \"", key, "\"")); }
  absl::Status Integer(const nlohmann::json& object, const char* key, int64_t* out) const {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_number_integer()) return Missing(key);
    if (found->is_number_unsigned() && found->get<uint64_t>() > INT64_MAX) return Missing(key);
    *out = found->get<int64_t>();
    return absl::OkStatus();
  }
  absl::Status Number(const nlohmann::json& object, const char* key, double* out) const {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_number()) return Missing(key);
    *out = found->get<double>();
    return absl::OkStatus();
  }
  absl::Status Text(const nlohmann::json& object, const char* key, std::string* out) const {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_string()) return Missing(key);
    *out = found->get<std::string>();
    return absl::OkStatus();
  }
  absl::Status HexNumber(const nlohmann::json& object, const char* key, uint64_t* out) const {
    std::string text;
    if (absl::Status status = Text(object, key, &text); !status.ok()) return status;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), *out, 16);
    const bool whole = text.size() == 16 && parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
    return whole ? absl::OkStatus() : Missing(key);
  }

  absl::Status ReadPoint(const SlotShape& shape, SnapshotPoint* point, std::vector<HeadExtent>* extents) const {
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
  absl::Status CheckForm(const SlotShape& shape, const SnapshotPoint& point, int64_t in_state_form) const {
    const kernels::RetentionShape& retention = shape.layout.shape();
    const bool switches = shape.layout.has_state() && retention.switch_over > 0;
    if (!switches) return point.switched || point.switch_units > 0 ? Missing("switched") : absl::OkStatus();
    const bool fits = in_state_form == point.switch_units && point.switched == (in_state_form == shape.num_regions()) &&
                      (in_state_form == 0 || point.position >= retention.switch_over) &&
                      (point.switched || point.position <= retention.switch_over);
    return fits ? absl::OkStatus() : Damaged("a switch-over that does not fit its position");
  }

  bool HasSection(const std::string& name) const {
    const nlohmann::json& list = SectionList();
    if (next_section_ >= list.size() || !list[next_section_].is_object()) return false;
    const auto found = list[next_section_].find("name");
    return found != list[next_section_].end() && found->is_string() && found->get<std::string>() == name;
  }

  // The next section, which must be this one; a number is `each` of T.
  template <typename T>
  absl::StatusOr<std::vector<T>> Section(const std::string& name, const char* dtype, int64_t count, int64_t each = 1) {
    if (!HasSection(name)) return Damaged(absl::StrCat("no section \"", name, "\" in its place"));
    const nlohmann::json& entry = SectionList()[next_section_++];
    std::string stored_dtype;
    int64_t offset = 0, bytes = 0, stored_count = 0;
    uint64_t checksum = 0;
    for (const absl::Status& status :
         {Text(entry, "dtype", &stored_dtype), Integer(entry, "count", &stored_count),
          Integer(entry, "offset", &offset), Integer(entry, "bytes", &bytes), HexNumber(entry, "xxh3", &checksum)}) {
      if (!status.ok()) return status;
    }
    // The sizes of all others are bounded by the model's: no small file can ask for much memory.
    const bool compressed = may_be_compressed_ && entry.contains("codec") && name != kTokens;
    if (compressed) {
      std::string codec;
      if (absl::Status status = Text(entry, "codec", &codec); !status.ok()) return status;
      if (codec != kZstd) return Damaged(absl::StrCat("section \"", name, "\" is packed as \"", codec, "\""));
    }
    const int64_t raw_bytes = count * each * static_cast<int64_t>(sizeof(T));
    const bool fits = stored_dtype == dtype && stored_count == count &&
                      (compressed ? bytes > 0 && bytes < raw_bytes : bytes == raw_bytes) &&
                      offset >= static_cast<int64_t>(kMagic.size()) && offset % kAlignment == 0 &&
                      offset <= static_cast<int64_t>(sections_end_) &&
                      bytes <= static_cast<int64_t>(sections_end_) - offset;
    if (!fits) return Damaged(absl::StrCat("section \"", name, "\" has another type, size or place"));
    const auto stored = file_.subspan(static_cast<size_t>(offset), static_cast<size_t>(bytes));
    if (Checksum(stored) != checksum) {
      return Damaged(absl::StrCat("the checksum of section \"", name, "\" does not fit"));
    }
    std::vector<T> values(static_cast<size_t>(count * each));
    if (compressed) {
      const size_t size = ZSTD_decompress(values.data(), static_cast<size_t>(raw_bytes), stored.data(), stored.size());
      if (ZSTD_isError(size) == 0 && size == static_cast<size_t>(raw_bytes)) return values;
      return Damaged(absl::StrCat("section \"", name, "\" does not decompress to its size"));
    }
    if (count > 0) std::memcpy(values.data(), stored.data(), stored.size());
    return values;
  }

  // The canonical floats of a layer.
  absl::StatusOr<std::vector<float>> ReadLayer(const SlotShape& shape, int64_t layer,
                                               std::span<const HeadExtent> extents) {
    const std::string name = absl::StrCat("layer.", layer);
    int64_t floats = 0;
    for (const HeadExtent& extent : extents) floats += kernels::CanonicalFloats(shape.layout, extent);
    if (encoding_ == StateEncoding::kF32) return Section<float>(name, "F32", floats);
    const int64_t rows = LossyRows(shape.layout, extents);
    const int64_t each = BytesPerNumber(encoding_);
    EncodedLayer encoded;
    auto numbers = Section<std::byte>(name, encoding_ == StateEncoding::kInt8 ? "I8" : "BF16",
                                      rows * shape.layout.shape().head_dim, each);
    if (!numbers.ok()) return numbers.status();
    encoded.numbers = *std::move(numbers);
    if (encoding_ == StateEncoding::kInt8) {
      auto scales = Section<float>(name + ".scales", "F32", rows);
      if (!scales.ok()) return scales.status();
      encoded.scales = *std::move(scales);
    }
    auto exact = Section<float>(name + ".exact", "F32", ExactFloats(shape.layout, extents));
    if (!exact.ok()) return exact.status();
    encoded.exact = *std::move(exact);
    std::vector<float> canonical(static_cast<size_t>(floats));
    DecodeLayer(encoding_, encoded, shape.layout, extents, canonical.data());
    return canonical;
  }

  absl::Status ReadLayers(const SlotShape& shape, const SnapshotPoint& point, std::span<const HeadExtent> extents,
                          float* regions) {
    const int64_t heads = shape.layout.shape().heads_kv;
    for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
      auto section = ReadLayer(shape, layer, extents.subspan(static_cast<size_t>(layer * heads), heads));
      if (!section.ok()) return section.status();
      const float* canonical = section->data();
      for (int64_t region = layer * heads; region < (layer + 1) * heads; ++region) {
        kernels::ImportHead(shape.layout, canonical, extents[region], regions + region * point.used_floats);
        canonical += kernels::CanonicalFloats(shape.layout, extents[region]);
      }
    }
    return absl::OkStatus();
  }

  const std::span<const std::byte> file_;
  const std::string& name_;
  size_t sections_end_ = 0;
  nlohmann::json footer_;
  size_t next_section_ = 0;
  bool may_be_compressed_ = false;
  StateEncoding encoding_ = StateEncoding::kF32;
};

}  // namespace

absl::StatusOr<LoadedSnapshot> ReadSnapshot(std::span<const std::byte> file, const std::string& name,
                                            const Fingerprint& here, const SlotShape& shape, bool allow_other_numeric) {
  Reader reader(file, name);
  if (absl::Status status = reader.ReadFooter(); !status.ok()) return status;
  const absl::StatusOr<Fingerprint> made = reader.ReadFingerprint();
  if (!made.ok()) return made.status();
  if (absl::Status status = CheckIdentity(made->identity, here.identity); !status.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(name, ": ", std::string(status.message())));
  }
  LoadedSnapshot loaded;
  loaded.numeric_difference = NumericDifference(made->numeric, here.numeric);
  loaded.encoding = reader.encoding();
  if (loaded.encoding != StateEncoding::kF32) {
    absl::StrAppend(&loaded.numeric_difference, loaded.numeric_difference.empty() ? "" : "; ",
                    "the state was stored as ", StateEncodingName(loaded.encoding));
  }
  if (!loaded.numeric_difference.empty()) {
    if (!allow_other_numeric) return OtherNumericMode(name, loaded.numeric_difference);
    loaded.exactness = Exactness::kContinued;
  }
  auto contents = reader.ReadContents(shape, here.identity.vocab_size);
  if (!contents.ok()) return contents.status();
  loaded.snapshot = *std::move(contents);
  return loaded;
}

}  // namespace statehouse
