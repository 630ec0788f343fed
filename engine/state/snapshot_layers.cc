#include "engine/state/snapshot_layers.h"

#include <zstd.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/state/shared_work.h"
#include "engine/state/snapshot_encoding.h"
#include "engine/state/snapshot_format.h"
#include "kernels/math/aligned_buffer.h"

namespace statehouse {
namespace {

using kernels::AlignedBuffer;
using kernels::HeadExtent;
using kernels::HeadPart;
using namespace snapshot_format;  // NOLINT(google-build-using-namespace): a few constants

absl::Status Damaged(const std::string& name, const std::string& what) {
  return absl::DataLossError(absl::StrCat(name, ": the snapshot is damaged: ", what));
}
absl::Status BadChecksum(const std::string& name, const SnapshotSection& section) {
  return Damaged(name, absl::StrCat("the checksum of section \"", section.name, "\" does not fit"));
}

// Room for at least `bytes`.
absl::StatusOr<std::span<std::byte>> RoomIn(AlignedBuffer* buffer, int64_t bytes) {
  if (buffer->size() < bytes && !buffer->Allocate(bytes)) {
    return absl::ResourceExhaustedError(absl::StrCat("too little memory to load a snapshot: ", bytes, " bytes more"));
  }
  return std::span<std::byte>(buffer->data(), static_cast<size_t>(bytes));
}

// One thread's work, with its memory.
class LayerReader {
 public:
  explicit LayerReader(const LayersToRead& read) : read_(read), layout_(read.shape->layout) {}

  absl::Status Read(int64_t layer) {
    const SnapshotSection& numbers = read_.layers[layer].numbers;
    return read_.encoding == StateEncoding::kF32 && !numbers.compressed ? Stream(layer) : ReadWhole(layer);
  }

 private:
  int64_t heads() const { return layout_.shape().heads_kv; }
  const HeadExtent& extent(int64_t layer, int64_t head) const { return read_.extents[layer * heads() + head]; }
  float* region(int64_t layer, int64_t head) const {
    return read_.regions + (layer * heads() + head) * read_.used_floats;
  }

  // Piece by piece: what a wrong checksum at the end finds was moved, and never looked at.
  absl::Status Stream(int64_t layer) {
    const SnapshotSection& section = read_.layers[layer].numbers;
    int64_t offset = section.offset;
    checksum_.Restart();
    for (int64_t head = 0; head < heads(); ++head) {
      const HeadExtent& of_head = extent(layer, head);
      kernels::ImportHeader(layout_, of_head, region(layer, head));
      for (const HeadPart& part : kernels::PartsOf(layout_, of_head, kPieceFloats)) {
        const int64_t bytes = part.floats * static_cast<int64_t>(sizeof(float));
        const auto room = RoomIn(&raw_, bytes);
        if (!room.ok()) return room.status();
        const auto piece = read_.file->View(offset, *room);
        if (!piece.ok()) return piece.status();
        checksum_.Add(*piece);
        kernels::ImportPart(layout_, reinterpret_cast<const float*>(piece->data()), of_head, part, region(layer, head));
        offset += bytes;
      }
    }
    return checksum_.value() == section.checksum ? absl::OkStatus() : BadChecksum(*read_.name, section);
  }

  absl::StatusOr<std::span<const std::byte>> Whole(const SnapshotSection& section, AlignedBuffer* buffer) {
    const auto room = RoomIn(buffer, section.raw_bytes);
    if (!room.ok()) return room.status();
    return ReadSection(*read_.file, *read_.name, section, *room, &packed_);
  }
  static std::span<const float> Floats(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
  }

  // A layer that must be unpacked or decoded before it can be moved.
  absl::Status ReadWhole(int64_t layer) {
    const LayerSections& sections = read_.layers[layer];
    const auto numbers = Whole(sections.numbers, &raw_);
    if (!numbers.ok()) return numbers.status();
    const float* canonical = reinterpret_cast<const float*>(numbers->data());
    if (read_.encoding != StateEncoding::kF32) {
      EncodedLayerView encoded;
      encoded.numbers = *numbers;
      if (read_.encoding == StateEncoding::kInt8) {
        const auto scales = Whole(sections.scales, &scales_);
        if (!scales.ok()) return scales.status();
        encoded.scales = Floats(*scales);
      }
      const auto exact = Whole(sections.exact, &exact_);
      if (!exact.ok()) return exact.status();
      encoded.exact = Floats(*exact);
      const auto of_layer = read_.extents.subspan(static_cast<size_t>(layer * heads()), static_cast<size_t>(heads()));
      int64_t floats = 0;
      for (const HeadExtent& of_head : of_layer) floats += kernels::CanonicalFloats(layout_, of_head);
      const auto room = RoomIn(&decoded_, floats * static_cast<int64_t>(sizeof(float)));
      if (!room.ok()) return room.status();
      DecodeLayer(read_.encoding, encoded, layout_, of_layer, decoded_.as<float>());
      canonical = decoded_.as<float>();
    }
    for (int64_t head = 0; head < heads(); ++head) {
      kernels::ImportHead(layout_, canonical, extent(layer, head), region(layer, head));
      canonical += kernels::CanonicalFloats(layout_, extent(layer, head));
    }
    return absl::OkStatus();
  }

  const LayersToRead& read_;
  const kernels::RetentionLayout& layout_;
  RunningChecksum checksum_;
  AlignedBuffer raw_, packed_, scales_, exact_, decoded_;
};

}  // namespace

absl::StatusOr<std::span<const std::byte>> ReadSection(const ByteSource& file, const std::string& name,
                                                       const SnapshotSection& section, std::span<std::byte> raw,
                                                       AlignedBuffer* packed) {
  std::span<std::byte> scratch = raw;
  if (section.compressed) {
    const auto room = RoomIn(packed, section.bytes);
    if (!room.ok()) return room.status();
    scratch = *room;
  }
  const auto stored = file.View(section.offset, scratch);
  if (!stored.ok()) return stored.status();
  if (Checksum(*stored) != section.checksum) return BadChecksum(name, section);
  if (!section.compressed) return *stored;
  const size_t size = ZSTD_decompress(raw.data(), raw.size(), stored->data(), stored->size());
  if (ZSTD_isError(size) == 0 && size == raw.size()) return std::span<const std::byte>(raw);
  return Damaged(name, absl::StrCat("section \"", section.name, "\" does not decompress to its size"));
}

absl::Status ReadLayers(const LayersToRead& read) {
  const int64_t num_layers = static_cast<int64_t>(read.layers.size());
  std::vector<absl::Status> outcomes(read.layers.size());
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  const auto work = [&] {
    LayerReader reader(read);
    for (int64_t layer = next++; layer < num_layers && !failed; layer = next++) {
      outcomes[static_cast<size_t>(layer)] = reader.Read(layer);
      if (!outcomes[static_cast<size_t>(layer)].ok()) failed = true;
    }
  };
  int64_t bytes = 0;
  for (const LayerSections& layer : read.layers) bytes += layer.numbers.raw_bytes;
  ShareWork(WorthwhileThreads(bytes, num_layers), work);
  for (const absl::Status& outcome : outcomes) {
    if (!outcome.ok()) return outcome;
  }
  return absl::OkStatus();
}

}  // namespace statehouse
