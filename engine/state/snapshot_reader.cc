#include <algorithm>
#include <bit>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/state/snapshot_encoding.h"
#include "engine/state/snapshot_file.h"
#include "engine/state/snapshot_footer.h"
#include "engine/state/snapshot_format.h"
#include "engine/state/snapshot_layers.h"
#include "kernels/power_retention/canonical.h"

namespace statehouse {
namespace {

using kernels::HeadExtent;
using namespace snapshot_format;  // NOLINT(google-build-using-namespace): a few constants

static_assert(std::endian::native == std::endian::little, "files are little-endian, and so is this code");

// A section of numbers that stay as they are.
template <typename T>
absl::StatusOr<std::vector<T>> ReadNumbers(const ByteSource& file, const std::string& name, const std::string& section,
                                           const char* dtype, int64_t count, SnapshotFooter* footer) {
  const auto taken = footer->Take(section, dtype, count, sizeof(T));
  if (!taken.ok()) return taken.status();
  std::vector<T> numbers;
  if (taken->compressed) {
    numbers.resize(static_cast<size_t>(count));
    kernels::AlignedBuffer packed;
    const auto read = ReadSection(file, name, *taken, std::as_writable_bytes(std::span(numbers)), &packed);
    return read.ok() ? absl::StatusOr<std::vector<T>>(std::move(numbers)) : read.status();
  }
  // By way of aligned memory, which a file is read into several times faster; and none is filled with zeros before.
  kernels::AlignedBuffer scratch;
  const int64_t most = std::min<int64_t>(count, kPieceFloats);
  if (!scratch.Allocate(most * static_cast<int64_t>(sizeof(T)))) {
    return absl::ResourceExhaustedError(absl::StrCat(name, ": too little memory to load the snapshot"));
  }
  numbers.reserve(static_cast<size_t>(count));
  RunningChecksum checksum;
  for (int64_t at = 0; at < count; at += most) {
    const size_t piece = static_cast<size_t>(std::min(most, count - at));
    const auto bytes =
        file.View(taken->offset + at * static_cast<int64_t>(sizeof(T)), std::span(scratch.data(), piece * sizeof(T)));
    if (!bytes.ok()) return bytes.status();
    checksum.Add(*bytes);
    const T* const first = reinterpret_cast<const T*>(bytes->data());
    numbers.insert(numbers.end(), first, first + piece);
  }
  if (checksum.value() != taken->checksum) {
    return footer->Damaged(absl::StrCat("the checksum of section \"", section, "\" does not fit"));
  }
  return numbers;
}

absl::StatusOr<std::vector<LayerSections>> TakeLayers(const SlotShape& shape, std::span<const HeadExtent> extents,
                                                      SnapshotFooter* footer) {
  const StateEncoding encoding = footer->encoding();
  const int64_t heads = shape.layout.shape().heads_kv;
  std::vector<LayerSections> layers;
  for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
    const auto of_layer = extents.subspan(static_cast<size_t>(layer * heads), static_cast<size_t>(heads));
    const std::string name = absl::StrCat("layer.", layer);
    LayerSections& sections = layers.emplace_back();
    const auto take = [footer](const std::string& section, const char* dtype, int64_t count, int64_t each,
                               SnapshotSection* out) {
      auto taken = footer->Take(section, dtype, count, each);
      if (!taken.ok()) return taken.status();
      *out = *std::move(taken);
      return absl::OkStatus();
    };
    absl::Status status;
    if (encoding == StateEncoding::kF32) {
      int64_t floats = 0;
      for (const HeadExtent& extent : of_layer) floats += kernels::CanonicalFloats(shape.layout, extent);
      status = take(name, "F32", floats, sizeof(float), &sections.numbers);
    } else {
      const bool is_int8 = encoding == StateEncoding::kInt8;
      const int64_t rows = LossyRows(shape.layout, of_layer);
      status = take(name, is_int8 ? "I8" : "BF16", rows * shape.layout.shape().head_dim, BytesPerNumber(encoding),
                    &sections.numbers);
      if (status.ok() && is_int8) status = take(name + ".scales", "F32", rows, sizeof(float), &sections.scales);
      if (status.ok()) {
        status = take(name + ".exact", "F32", ExactFloats(shape.layout, of_layer), sizeof(float), &sections.exact);
      }
    }
    if (!status.ok()) return status;
  }
  return layers;
}

// REQUIRES: the identity is that of `shape`.
absl::StatusOr<std::shared_ptr<const Snapshot>> ReadContents(const ByteSource& file, const std::string& name,
                                                             const SlotShape& shape, int64_t vocab_size,
                                                             SnapshotMemory* memory, SnapshotFooter* footer) {
  SnapshotPoint point;
  std::vector<HeadExtent> extents;
  if (absl::Status status = footer->ReadPoint(shape, &point, &extents); !status.ok()) return status;
  auto tokens = ReadNumbers<int32_t>(file, name, std::string(kTokens), "I32", point.position, footer);
  if (!tokens.ok()) return tokens.status();
  for (const int32_t token : *tokens) {
    if (token < 0 || token >= vocab_size) return footer->Damaged(absl::StrCat("token id ", token));
  }
  std::vector<float> logits;
  if (footer->NextIs("logits")) {
    auto section = ReadNumbers<float>(file, name, "logits", "F32", vocab_size, footer);
    if (!section.ok()) return section.status();
    logits = *std::move(section);
  }
  const auto layers = TakeLayers(shape, extents, footer);
  if (!layers.ok()) return layers.status();
  if (absl::Status status = footer->CheckEnd(); !status.ok()) return status;
  for (const HeadExtent& extent : extents) {
    point.used_floats = std::max(point.used_floats, kernels::RegionFloats(shape.layout, extent));
  }
  const int64_t bytes = point.used_floats * shape.num_regions() * static_cast<int64_t>(sizeof(float));
  SnapshotBuffer regions = SnapshotMemory::TakeFrom(memory, bytes, SnapshotMemory::Contents::kZero);
  if (regions.empty()) {
    return absl::ResourceExhaustedError(absl::StrCat(name, ": too little memory to load the snapshot"));
  }
  const absl::Status status = ReadLayers({.file = &file,
                                          .name = &name,
                                          .encoding = footer->encoding(),
                                          .shape = &shape,
                                          .extents = extents,
                                          .layers = *layers,
                                          .used_floats = point.used_floats,
                                          .regions = regions.as<float>()});
  if (!status.ok()) return status;
  return std::make_shared<const Snapshot>(shape, point, std::move(regions), std::move(logits), *std::move(tokens));
}

}  // namespace

absl::StatusOr<LoadedSnapshot> ReadSnapshot(const ByteSource& file, const std::string& name, const Fingerprint& here,
                                            const SlotShape& shape, bool allow_other_numeric, SnapshotMemory* memory) {
  absl::StatusOr<SnapshotFooter> footer = SnapshotFooter::Read(file, name);
  if (!footer.ok()) return footer.status();
  const absl::StatusOr<Fingerprint> made = footer->ReadFingerprint();
  if (!made.ok()) return made.status();
  if (absl::Status status = CheckIdentity(made->identity, here.identity); !status.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(name, ": ", std::string(status.message())));
  }
  LoadedSnapshot loaded;
  loaded.numeric_difference = NumericDifference(made->numeric, here.numeric);
  loaded.encoding = footer->encoding();
  if (loaded.encoding != StateEncoding::kF32) {
    absl::StrAppend(&loaded.numeric_difference, loaded.numeric_difference.empty() ? "" : "; ",
                    "the state was stored as ", StateEncodingName(loaded.encoding));
  }
  if (!loaded.numeric_difference.empty()) {
    if (!allow_other_numeric) return OtherNumericMode(name, loaded.numeric_difference);
    loaded.exactness = Exactness::kContinued;
  }
  auto contents = ReadContents(file, name, shape, here.identity.vocab_size, memory, &*footer);
  if (!contents.ok()) return contents.status();
  loaded.snapshot = *std::move(contents);
  return loaded;
}

absl::StatusOr<LoadedSnapshot> ReadSnapshot(std::span<const std::byte> file, const std::string& name,
                                            const Fingerprint& here, const SlotShape& shape, bool allow_other_numeric,
                                            SnapshotMemory* memory) {
  return ReadSnapshot(*ViewOf(file), name, here, shape, allow_other_numeric, memory);
}

}  // namespace statehouse
