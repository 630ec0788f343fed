#define XXH_INLINE_ALL
#include <xxhash.h>

#include <bit>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/state/snapshot_file.h"
#include "engine/state/snapshot_format.h"
#include "kernels/power_retention/canonical.h"

namespace statehouse {

uint64_t snapshot_format::Checksum(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

namespace {

using Json = nlohmann::ordered_json;
using kernels::HeadExtent;
using namespace snapshot_format;  // NOLINT(google-build-using-namespace): five constants

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
  explicit Writer(const ByteSink& sink) : sink_(sink) {}

  absl::Status Put(std::span<const std::byte> bytes) {
    offset_ += static_cast<int64_t>(bytes.size());
    return sink_(bytes);
  }
  absl::Status PutText(std::string_view text) { return Put(std::as_bytes(std::span(text))); }
  absl::Status PutNumber(uint64_t number) { return Put(std::as_bytes(std::span(&number, 1))); }

  absl::Status PutSection(const std::string& name, const char* dtype, std::span<const std::byte> bytes) {
    static constexpr std::byte kZeros[kAlignment] = {};
    if (const int64_t gap = -offset_ & (kAlignment - 1); gap > 0) {
      if (absl::Status status = Put(std::span(kZeros).first(static_cast<size_t>(gap))); !status.ok()) return status;
    }
    sections_.push_back({{"name", name},
                         {"dtype", dtype},
                         {"count", bytes.size() / 4},
                         {"offset", offset_},
                         {"bytes", bytes.size()},
                         {"xxh3", Hex(Checksum(bytes))}});
    return Put(bytes);
  }
  const Json& sections() const { return sections_; }

 private:
  const ByteSink& sink_;
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

absl::Status WriteLayers(const Snapshot& snapshot, std::span<const HeadExtent> extents, Writer* writer) {
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
    const auto bytes = BytesOf(std::span<const float>(canonical));
    if (absl::Status status = writer->PutSection(absl::StrCat("layer.", layer), "F32", bytes); !status.ok())
      return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteSnapshot(const Snapshot& snapshot, const Fingerprint& fingerprint, const ByteSink& sink) {
  const std::vector<HeadExtent> extents = ExtentsOf(snapshot);
  Writer writer(sink);
  if (absl::Status status = writer.PutText(kMagic); !status.ok()) return status;
  if (absl::Status status = writer.PutSection("tokens", "I32", BytesOf(snapshot.tokens())); !status.ok()) return status;
  if (!snapshot.logits().empty()) {
    if (absl::Status status = writer.PutSection("logits", "F32", BytesOf(snapshot.logits())); !status.ok())
      return status;
  }
  if (absl::Status status = WriteLayers(snapshot, extents, &writer); !status.ok()) return status;

  Json extent_list = Json::array();
  for (const HeadExtent& extent : extents) {
    extent_list.push_back({extent.state_form ? 1 : 0, extent.folded, extent.num_rows});
  }
  const Json footer = {{"format", kVersion},
                       {"identity", IdentityJson(fingerprint.identity)},
                       {"numeric", NumericJson(fingerprint.numeric)},
                       {"position", snapshot.position()},
                       {"switched", snapshot.point().switched},
                       {"switch_units", snapshot.point().switch_units},
                       {"extents", extent_list},
                       {"sections", writer.sections()}};
  const std::string text = footer.dump();
  for (const absl::Status& status :
       {writer.PutText(text), writer.PutNumber(text.size()), writer.PutNumber(Checksum(std::as_bytes(std::span(text)))),
        writer.PutText(kEndMagic)}) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace statehouse
