#define XXH_INLINE_ALL
#include <xxhash.h>

#include <zstd.h>

#include <bit>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/state/snapshot_encoding.h"
#include "engine/state/snapshot_file.h"
#include "engine/state/snapshot_format.h"
#include "kernels/power_retention/canonical.h"

namespace statehouse {

uint64_t snapshot_format::Checksum(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

namespace {

using Json = nlohmann::ordered_json;
using kernels::HeadExtent;
using namespace snapshot_format;  // NOLINT(google-build-using-namespace): a few constants

static_assert(std::endian::native == std::endian::little, "files are little-endian, and so is this code");

std::string Hex(uint64_t value) { return absl::StrCat(absl::Hex(value, absl::kZeroPad16)); }

template <typename T>
std::span<const std::byte> BytesOf(std::span<const T> values) {
  return std::as_bytes(values);
}

Json IdentityJson(const Identity& identity) {
  return {{"weights", Hex(identity.weights)},   {"tokenizer", Hex(identity.tokenizer)},
          {"adapter", identity.adapter},        {"num_layers", identity.num_layers},
          {"vocab_size", identity.vocab_size},  {"heads_q", identity.heads_q},
          {"heads_kv", identity.heads_kv},      {"head_dim", identity.head_dim},
          {"degree", identity.degree},          {"scale", identity.scale},
          {"rope_theta", identity.rope_theta},  {"chunk", identity.chunk},
          {"switch_over", identity.switch_over}};
}

Json NumericJson(const NumericMode& numeric) {
  return {{"device", numeric.device},
          {"arithmetic", numeric.arithmetic},
          {"weights", numeric.weights},
          {"state", numeric.state}};
}

class Writer {
 public:
  Writer(const ByteSink& sink, int zstd_level) : sink_(sink), zstd_level_(zstd_level) {}

  absl::Status Put(std::span<const std::byte> bytes) {
    offset_ += static_cast<int64_t>(bytes.size());
    return sink_(bytes);
  }
  absl::Status PutText(std::string_view text) { return Put(std::as_bytes(std::span(text))); }
  absl::Status PutNumber(uint64_t number) { return Put(std::as_bytes(std::span(&number, 1))); }

  absl::Status PutSection(const std::string& name, const char* dtype, int64_t count, std::span<const std::byte> raw) {
    const bool compressed = zstd_level_ > 0 && name != kTokens && Compress(raw);
    const std::span<const std::byte> bytes = compressed ? std::span<const std::byte>(compressed_) : raw;
    static constexpr std::byte kZeros[kAlignment] = {};
    if (const int64_t gap = -offset_ & (kAlignment - 1); gap > 0) {
      if (absl::Status status = Put(std::span(kZeros).first(static_cast<size_t>(gap))); !status.ok()) return status;
    }
    sections_.push_back({{"name", name},
                         {"dtype", dtype},
                         {"count", count},
                         {"offset", offset_},
                         {"bytes", bytes.size()},
                         {"xxh3", Hex(Checksum(bytes))}});
    if (compressed) sections_.back()["codec"] = std::string(kZstd);
    return Put(bytes);
  }
  const Json& sections() const { return sections_; }

 private:
  // False if it would not be smaller.
  bool Compress(std::span<const std::byte> raw) {
    compressed_.resize(ZSTD_compressBound(raw.size()));
    const size_t size = ZSTD_compress(compressed_.data(), compressed_.size(), raw.data(), raw.size(), zstd_level_);
    if (ZSTD_isError(size) != 0 || size >= raw.size()) return false;
    compressed_.resize(size);
    return true;
  }

  const ByteSink& sink_;
  const int zstd_level_;
  std::vector<std::byte> compressed_;
  int64_t offset_ = 0;
  Json sections_ = Json::array();
};

std::vector<HeadExtent> ExtentsOf(const Snapshot& snapshot) {
  std::vector<HeadExtent> extents;
  for (int64_t region = 0; region < snapshot.shape().num_regions(); ++region) {
    extents.push_back(kernels::ExtentOf(
        snapshot.shape().layout, snapshot.regions() + region * snapshot.point().used_floats, snapshot.position()));
  }
  return extents;
}

absl::Status PutFloats(const std::string& name, std::span<const float> floats, Writer* writer) {
  return writer->PutSection(name, "F32", static_cast<int64_t>(floats.size()), BytesOf(floats));
}

absl::Status PutEncoded(const std::string& name, StateEncoding encoding, const EncodedLayer& layer, Writer* writer) {
  const int64_t count = static_cast<int64_t>(layer.numbers.size()) / BytesPerNumber(encoding);
  const char* const dtype = encoding == StateEncoding::kInt8 ? "I8" : "BF16";
  if (absl::Status status = writer->PutSection(name, dtype, count, layer.numbers); !status.ok()) return status;
  if (encoding == StateEncoding::kInt8) {
    if (absl::Status status = PutFloats(name + ".scales", layer.scales, writer); !status.ok()) return status;
  }
  return PutFloats(name + ".exact", layer.exact, writer);
}

absl::Status WriteLayers(const Snapshot& snapshot, std::span<const HeadExtent> extents, StateEncoding encoding,
                         uint64_t seed, Writer* writer) {
  const kernels::RetentionLayout& layout = snapshot.shape().layout;
  const int64_t heads = layout.shape().heads_kv;
  std::vector<float> canonical;
  for (int64_t layer = 0; layer < snapshot.shape().num_layers; ++layer) {
    canonical.clear();
    for (int64_t region = layer * heads; region < (layer + 1) * heads; ++region) {
      const size_t begin = canonical.size();
      canonical.resize(begin + static_cast<size_t>(kernels::CanonicalFloats(layout, extents[region])));
      kernels::ExportHead(layout, snapshot.regions() + region * snapshot.point().used_floats, extents[region],
                          canonical.data() + begin);
    }
    const std::string name = absl::StrCat("layer.", layer);
    if (encoding == StateEncoding::kF32) {
      if (absl::Status status = PutFloats(name, canonical, writer); !status.ok()) return status;
      continue;
    }
    const auto of_layer = extents.subspan(static_cast<size_t>(layer * heads), static_cast<size_t>(heads));
    const auto encoded = EncodeLayer(encoding, canonical, layout, of_layer, seed, layer);
    if (!encoded.ok()) return encoded.status();
    if (absl::Status status = PutEncoded(name, encoding, *encoded, writer); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

const char* StateEncodingName(StateEncoding encoding) {
  return encoding == StateEncoding::kInt8 ? "int8" : encoding == StateEncoding::kBf16 ? "bf16" : "f32";
}

absl::Status WriteSnapshot(const Snapshot& snapshot, const Fingerprint& fingerprint, const ByteSink& sink,
                           const SnapshotFileOptions& options) {
  constexpr int kMostLevel = 19;
  if (options.zstd_level < 0 || options.zstd_level > kMostLevel) {
    return absl::InvalidArgumentError(
        absl::StrCat("a zstd level of ", options.zstd_level, "; it must be in [0, ", kMostLevel, "], 0 is none"));
  }
  const std::vector<HeadExtent> extents = ExtentsOf(snapshot);
  // The same snapshot gives the same file, and another position other noise.
  const uint64_t seed = Checksum(BytesOf(snapshot.tokens()));
  const bool is_exact = options.encoding == StateEncoding::kF32;
  Writer writer(sink, options.zstd_level);
  if (absl::Status status = writer.PutText(kMagic); !status.ok()) return status;
  if (absl::Status status =
          writer.PutSection(std::string(kTokens), "I32", snapshot.position(), BytesOf(snapshot.tokens()));
      !status.ok()) {
    return status;
  }
  if (!snapshot.logits().empty()) {
    if (absl::Status status = PutFloats("logits", snapshot.logits(), &writer); !status.ok()) return status;
  }
  if (absl::Status status = WriteLayers(snapshot, extents, options.encoding, seed, &writer); !status.ok()) {
    return status;
  }

  Json extent_list = Json::array();
  for (const HeadExtent& extent : extents) {
    extent_list.push_back({extent.state_form ? 1 : 0, extent.folded, extent.num_rows});
  }
  const int format = is_exact && options.zstd_level == 0 ? kExactVersion : kEncodedVersion;
  Json footer = {{"format", format},
                 {"identity", IdentityJson(fingerprint.identity)},
                 {"numeric", NumericJson(fingerprint.numeric)},
                 {"position", snapshot.position()},
                 {"switched", snapshot.point().switched},
                 {"switch_units", snapshot.point().switch_units},
                 {"extents", extent_list},
                 {"sections", writer.sections()}};
  if (!is_exact) footer["encoding"] = {{"state", StateEncodingName(options.encoding)}, {"seed", Hex(seed)}};
  const std::string text = footer.dump();
  for (const absl::Status& status :
       {writer.PutText(text), writer.PutNumber(text.size()), writer.PutNumber(Checksum(std::as_bytes(std::span(text)))),
        writer.PutText(kEndMagic)}) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace statehouse
