#include <zstd.h>

#include <atomic>
#include <bit>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/state/byte_buffer.h"
#include "engine/state/shared_work.h"
#include "engine/state/snapshot_encoding.h"
#include "engine/state/snapshot_file.h"
#include "engine/state/snapshot_format.h"
#include "kernels/power_retention/canonical.h"

namespace statehouse {

namespace {

using Json = nlohmann::ordered_json;
using kernels::HeadExtent;
using namespace snapshot_format;  // NOLINT(google-build-using-namespace): a few constants

static_assert(std::endian::native == std::endian::little, "files are little-endian, and so is this code");

constexpr int64_t kFloatBytes = sizeof(float);
// Room for a footer, its sections' gaps with it. More is had when it is needed, by copying.
constexpr int64_t kFooterBytes = 8192;
constexpr int64_t kFooterBytesPerRegion = 1024;

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

absl::Status NoMemory(int64_t bytes) {
  return absl::ResourceExhaustedError(absl::StrCat("too little memory to write a snapshot: ", bytes, " bytes more"));
}

class Writer {
 public:
  // `memory` is what the sink appends to, if that is memory, else null.
  Writer(const ByteSink& sink, int zstd_level, ByteBuffer* memory)
      : sink_(sink), zstd_level_(zstd_level), memory_(memory) {}

  absl::Status Put(std::span<const std::byte> bytes) {
    offset_ += static_cast<int64_t>(bytes.size());
    return sink_(bytes);
  }
  absl::Status PutText(std::string_view text) { return Put(std::as_bytes(std::span(text))); }
  absl::Status PutNumber(uint64_t number) { return Put(std::as_bytes(std::span(&number, 1))); }

  absl::Status PutSection(const std::string& name, const char* dtype, int64_t count, std::span<const std::byte> raw) {
    const bool compressed = zstd_level_ > 0 && name != kTokens && Compress(raw);
    const std::span<const std::byte> bytes = compressed ? std::span<const std::byte>(compressed_) : raw;
    if (absl::Status status = BeginSection(); !status.ok()) return status;
    if (absl::Status status = PutPiece(bytes); !status.ok()) return status;
    EndSection(name, dtype, count);
    if (compressed) sections_.back()["codec"] = std::string(kZstd);
    return absl::OkStatus();
  }
  // The same piece by piece, never compressed.
  absl::Status BeginSection() {
    static constexpr std::byte kZeros[kAlignment] = {};
    const int64_t gap = -offset_ & (kAlignment - 1);
    absl::Status status = gap == 0 ? absl::OkStatus() : Put(std::span(kZeros).first(static_cast<size_t>(gap)));
    section_begin_ = offset_;
    checksum_.Restart();
    return status;
  }
  absl::Status PutPiece(std::span<const std::byte> bytes) {
    checksum_.Add(bytes);
    return Put(bytes);
  }
  void EndSection(const std::string& name, const char* dtype, int64_t count) {
    AddSection(name, dtype, count, section_begin_, offset_ - section_begin_, checksum_.value());
  }
  void AddSection(const std::string& name, const char* dtype, int64_t count, int64_t offset, int64_t bytes,
                  uint64_t checksum) {
    sections_.push_back({{"name", name},
                         {"dtype", dtype},
                         {"count", count},
                         {"offset", offset},
                         {"bytes", bytes},
                         {"xxh3", Hex(checksum)}});
  }
  bool compresses() const { return zstd_level_ > 0; }
  int64_t offset() const { return offset_; }

  ByteBuffer* memory() const { return memory_; }
  // Leaves so many bytes of the memory to others. REQUIRES: memory().
  absl::Status Skip(int64_t bytes) {
    if (!memory_->Extend(bytes)) return NoMemory(bytes);
    offset_ += bytes;
    return absl::OkStatus();
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
  ByteBuffer* const memory_;
  std::vector<std::byte> compressed_;
  int64_t offset_ = 0;
  int64_t section_begin_ = 0;
  RunningChecksum checksum_;
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

// Calls fn(region, extent, part) for all of a layer, in canonical order, until it fails. A part is small enough to stay
// in a core's own cache while it is rearranged, checked and written.
template <typename Fn>
absl::Status ForEachPart(const Snapshot& snapshot, int64_t layer, std::span<const HeadExtent> of_layer, const Fn& fn) {
  for (size_t head = 0; head < of_layer.size(); ++head) {
    const int64_t region = layer * static_cast<int64_t>(of_layer.size()) + static_cast<int64_t>(head);
    const float* const from = snapshot.regions() + region * snapshot.point().used_floats;
    for (const kernels::HeadPart& part : kernels::PartsOf(snapshot.shape().layout, of_layer[head], kPieceFloats)) {
      if (absl::Status status = fn(from, of_layer[head], part); !status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

// One layer as it is, piece by piece.
absl::Status StreamLayer(const Snapshot& snapshot, int64_t layer, std::span<const HeadExtent> of_layer,
                         std::span<float> scratch, Writer* writer) {
  int64_t count = 0;
  if (absl::Status status = writer->BeginSection(); !status.ok()) return status;
  absl::Status status = ForEachPart(
      snapshot, layer, of_layer, [&](const float* region, const HeadExtent& extent, const kernels::HeadPart& part) {
        kernels::ExportPart(snapshot.shape().layout, region, extent, part, scratch.data());
        count += part.floats;
        return writer->PutPiece(BytesOf(std::span<const float>(scratch.first(static_cast<size_t>(part.floats)))));
      });
  writer->EndSection(absl::StrCat("layer.", layer), "F32", count);
  return status;
}

// All layers as they are, into memory, several at a time: where each lies is known before it is there.
absl::Status FillLayers(const Snapshot& snapshot, std::span<const HeadExtent> extents, Writer* writer) {
  const kernels::RetentionLayout& layout = snapshot.shape().layout;
  const size_t num_layers = static_cast<size_t>(snapshot.shape().num_layers);
  const size_t heads = static_cast<size_t>(layout.shape().heads_kv);
  const auto of_layer = [&](size_t layer) { return extents.subspan(layer * heads, heads); };
  struct Place {
    int64_t begin = 0;   // in the memory
    int64_t offset = 0;  // in the file
    int64_t floats = 0;
    uint64_t checksum = 0;
  };
  std::vector<Place> places(num_layers);
  const int64_t all_begin = writer->offset();
  for (size_t layer = 0; layer < num_layers; ++layer) {
    Place& place = places[layer];
    if (absl::Status status = writer->BeginSection(); !status.ok()) return status;
    place.begin = writer->memory()->size();
    place.offset = writer->offset();
    for (const HeadExtent& extent : of_layer(layer)) place.floats += kernels::CanonicalFloats(layout, extent);
    if (absl::Status status = writer->Skip(place.floats * kFloatBytes); !status.ok()) return status;
  }
  std::atomic<size_t> next{0};
  const auto fill = [&, memory = writer->memory()->data()] {
    RunningChecksum checksum;
    for (size_t layer = next++; layer < num_layers; layer = next++) {
      float* to = reinterpret_cast<float*>(memory + places[layer].begin);
      checksum.Restart();
      const auto part = [&](const float* region, const HeadExtent& extent, const kernels::HeadPart& moved) {
        kernels::ExportPart(layout, region, extent, moved, to);
        checksum.Add(BytesOf(std::span<const float>(to, static_cast<size_t>(moved.floats))));
        to += moved.floats;
        return absl::OkStatus();
      };
      (void)ForEachPart(snapshot, static_cast<int64_t>(layer), of_layer(layer), part);
      places[layer].checksum = checksum.value();
    }
  };
  ShareWork(WorthwhileThreads(writer->offset() - all_begin, static_cast<int64_t>(num_layers)), fill);
  for (size_t layer = 0; layer < num_layers; ++layer) {
    const Place& place = places[layer];
    writer->AddSection(absl::StrCat("layer.", layer), "F32", place.floats, place.offset, place.floats * kFloatBytes,
                       place.checksum);
  }
  return absl::OkStatus();
}

absl::Status WriteLayers(const Snapshot& snapshot, std::span<const HeadExtent> extents, StateEncoding encoding,
                         uint64_t seed, Writer* writer) {
  const kernels::RetentionLayout& layout = snapshot.shape().layout;
  const int64_t heads = layout.shape().heads_kv;
  if (encoding == StateEncoding::kF32 && !writer->compresses() && writer->memory() != nullptr) {
    return FillLayers(snapshot, extents, writer);
  }
  // A row is never longer than a piece.
  static_assert(kPieceFloats >= kernels::kMaxHeadDim);
  std::vector<float> canonical(static_cast<size_t>(kPieceFloats));
  for (int64_t layer = 0; layer < snapshot.shape().num_layers; ++layer) {
    const auto of_layer = extents.subspan(static_cast<size_t>(layer * heads), static_cast<size_t>(heads));
    if (encoding == StateEncoding::kF32 && !writer->compresses()) {
      if (absl::Status status = StreamLayer(snapshot, layer, of_layer, canonical, writer); !status.ok()) return status;
      continue;
    }
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

namespace {

absl::Status Write(const Snapshot& snapshot, const Fingerprint& fingerprint, const SnapshotFileOptions& options,
                   const ByteSink& sink, ByteBuffer* memory) {
  constexpr int kMostLevel = 19;
  if (options.zstd_level < 0 || options.zstd_level > kMostLevel) {
    return absl::InvalidArgumentError(
        absl::StrCat("a zstd level of ", options.zstd_level, "; it must be in [0, ", kMostLevel, "], 0 is none"));
  }
  const std::vector<HeadExtent> extents = ExtentsOf(snapshot);
  // The same snapshot gives the same file, and another position other noise.
  const uint64_t seed = Checksum(BytesOf(snapshot.tokens()));
  const bool is_exact = options.encoding == StateEncoding::kF32;
  Writer writer(sink, options.zstd_level, memory);
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

}  // namespace

absl::Status WriteSnapshot(const Snapshot& snapshot, const Fingerprint& fingerprint, const ByteSink& sink,
                           const SnapshotFileOptions& options) {
  return Write(snapshot, fingerprint, options, sink, nullptr);
}

absl::Status WriteSnapshotInto(const Snapshot& snapshot, const Fingerprint& fingerprint, ByteBuffer* memory,
                               const SnapshotFileOptions& options) {
  const int64_t begin = memory->size();
  // What it takes at most, but for a long footer: the canonical form is never longer than the regions.
  const bool has_room =
      memory->Reserve(begin + snapshot.bytes() + kFooterBytes + snapshot.shape().num_regions() * kFooterBytesPerRegion);
  const ByteSink append = [memory](std::span<const std::byte> bytes) {
    return memory->Append(bytes) ? absl::OkStatus() : NoMemory(static_cast<int64_t>(bytes.size()));
  };
  ByteBuffer* const in_place = begin % alignof(float) == 0 ? memory : nullptr;
  absl::Status status = has_room ? Write(snapshot, fingerprint, options, append, in_place) : NoMemory(snapshot.bytes());
  if (!status.ok()) memory->Truncate(begin);
  return status;
}

}  // namespace statehouse
