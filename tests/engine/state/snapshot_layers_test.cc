// Files of states that are large enough for several threads: the same bits as one number after another, whatever they
// are read from, and damage anywhere is seen.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "engine/state/byte_buffer.h"
#include "engine/state/snapshot_file.h"
#include "kernels/power_retention/canonical.h"
#include "tests/support/slot_shapes.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;
using File = std::vector<std::byte>;

constexpr int64_t kVocab = 1000;
constexpr int64_t kChunk = 40;

// 18 MB in 7 layers; heads of 72 are padded in the regions, and chunks of 40 are cut by panels.
SlotShape LargeShape() {
  return MakeSlotShape({.heads = 3, .head_dim = 72, .chunk = kChunk, .switch_over = 4 * kChunk, .num_layers = 7});
}

struct NoLocker final : PageLocker {
  absl::Status Lock(std::span<std::byte>) override { return absl::OkStatus(); }
  void Unlock(std::span<std::byte>) override {}
};

class SnapshotLayersTest : public ::testing::Test {
 protected:
  SnapshotLayersTest() {
    here_.identity.num_layers = shape_.num_layers;
    here_.identity.vocab_size = kVocab;
  }
  // As a file would have it, so that every number of it is told apart from every other.
  std::shared_ptr<const Snapshot> Numbered(int64_t position) const {
    const kernels::RetentionLayout& layout = shape_.layout;
    const bool in_state_form = layout.InStateForm(position);
    SnapshotPoint point = {.position = position, .used_floats = layout.UsedHeadFloats(position)};
    point.switched = in_state_form;
    point.switch_units = in_state_form ? shape_.num_regions() : 0;
    kernels::HeadExtent extent;
    extent.state_form = in_state_form;
    extent.folded = in_state_form ? (position / kChunk - 1) * kChunk : 0;
    extent.num_rows = position - extent.folded;
    kernels::AlignedBuffer regions;
    EXPECT_TRUE(regions.Allocate(point.used_floats * shape_.num_regions() * static_cast<int64_t>(sizeof(float))));
    std::vector<float> canonical(static_cast<size_t>(kernels::CanonicalFloats(layout, extent)));
    float next = 1;
    for (int64_t region = 0; region < shape_.num_regions(); ++region) {
      for (float& number : canonical) number = next++;
      kernels::ImportHead(layout, canonical.data(), extent, regions.as<float>() + region * point.used_floats);
    }
    return std::make_shared<const Snapshot>(shape_, point, std::move(regions), std::vector<float>(kVocab, 2.0F),
                                            std::vector<int32_t>(static_cast<size_t>(position), 7));
  }
  File Written(const Snapshot& snapshot, const SnapshotFileOptions& options = {}) const {
    File file;
    const absl::Status status = WriteSnapshot(
        snapshot, here_,
        [&file](std::span<const std::byte> bytes) {
          file.insert(file.end(), bytes.begin(), bytes.end());
          return absl::OkStatus();
        },
        options);
    EXPECT_TRUE(status.ok()) << status;
    return file;
  }
  static void ExpectSame(const Snapshot& a, const Snapshot& b) {
    ASSERT_EQ(a.num_region_floats(), b.num_region_floats());
    EXPECT_EQ(std::memcmp(a.regions(), b.regions(), static_cast<size_t>(a.num_region_floats()) * sizeof(float)), 0);
    EXPECT_TRUE(std::equal(a.tokens().begin(), a.tokens().end(), b.tokens().begin(), b.tokens().end()));
    EXPECT_TRUE(std::equal(a.logits().begin(), a.logits().end(), b.logits().begin(), b.logits().end()));
  }

  const SlotShape shape_ = LargeShape();
  Fingerprint here_;
};

const SnapshotFileOptions kAllOptions[] = {
    {}, {.zstd_level = 1}, {.encoding = StateEncoding::kBf16}, {.encoding = StateEncoding::kInt8, .zstd_level = 1}};
constexpr int64_t kPositions[] = {1, 33, 159, 160, 161, 239, 240, 1000};

TEST_F(SnapshotLayersTest, EverySource_GivesTheSameBits) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/layers.", getpid());
  for (const int64_t position : kPositions) {
    SCOPED_TRACE(position);
    const auto snapshot = Numbered(position);
    const File file = Written(*snapshot);
    ASSERT_TRUE(FileLayer::Posix()->WriteWhole(path, [&file](const ByteSink& sink) { return sink(file); }).ok());
    const auto on_disk = FileLayer::Posix()->OpenRead(path);
    ASSERT_TRUE(on_disk.ok()) << on_disk.status();
    const auto from_disk = ReadSnapshot(**on_disk, "file", here_, shape_, false);
    ASSERT_TRUE(from_disk.ok()) << from_disk.status();
    ExpectSame(*from_disk->snapshot, *snapshot);
    // Into a block that held something else.
    const auto memory =
        SnapshotMemory::Make({.block_bytes = shape_.bytes(), .num_blocks = 1}, std::make_shared<NoLocker>());
    {
      SnapshotBuffer before = memory->Take(shape_.bytes(), SnapshotMemory::Contents::kUndefined);
      std::memset(before.as<char>(), 0xA5, static_cast<size_t>(shape_.bytes()));
    }
    const auto into_block = ReadSnapshot(**on_disk, "file", here_, shape_, false, memory.get());
    ASSERT_TRUE(into_block.ok()) << into_block.status();
    EXPECT_EQ(into_block->snapshot->is_page_locked(), position >= shape_.layout.shape().switch_over) << position;
    ExpectSame(*into_block->snapshot, *snapshot);
    // In memory, also where no number is aligned.
    File shifted(file.size() + 1);
    std::copy(file.begin(), file.end(), shifted.begin() + 1);
    for (const std::span<const std::byte> bytes :
         {std::span<const std::byte>(file), std::span<const std::byte>(shifted).subspan(1)}) {
      const auto loaded = ReadSnapshot(bytes, "memory", here_, shape_, false);
      ASSERT_TRUE(loaded.ok()) << loaded.status();
      ExpectSame(*loaded->snapshot, *snapshot);
    }
  }
  std::filesystem::remove(path);
}

TEST_F(SnapshotLayersTest, WrittenIntoMemory_IsTheFileThatASinkGets) {
  for (const int64_t position : {33, 160, 1000}) {
    const auto snapshot = Numbered(position);
    for (const SnapshotFileOptions& options : kAllOptions) {
      const File file = Written(*snapshot, options);
      for (const size_t before : {size_t{0}, size_t{3}, size_t{64}}) {
        ByteBuffer memory;
        ASSERT_TRUE(memory.Append(File(before, std::byte{5})));
        ASSERT_TRUE(WriteSnapshotInto(*snapshot, here_, &memory, options).ok());
        ASSERT_EQ(static_cast<size_t>(memory.size()), before + file.size());
        EXPECT_EQ(std::memcmp(memory.data() + before, file.data(), file.size()), 0)
            << "position " << position << ", behind " << before << " bytes";
        for (size_t at = 0; at < before; ++at) ASSERT_EQ(memory.data()[at], std::byte{5});
      }
    }
  }
}

TEST_F(SnapshotLayersTest, DamageInAnyLayer_IsSeenAndNamed) {
  const auto snapshot = Numbered(1000);
  for (const SnapshotFileOptions& options : kAllOptions) {
    const File file = Written(*snapshot, options);
    for (int part = 1; part < 20; ++part) {
      File damaged = file;
      damaged[damaged.size() * static_cast<size_t>(part) / 20] ^= std::byte{0x10};
      const auto loaded = ReadSnapshot(damaged, "test", here_, shape_, true);
      ASSERT_EQ(loaded.status().code(), absl::StatusCode::kDataLoss) << part << ": " << loaded.status();
      EXPECT_THAT(std::string(loaded.status().message()), HasSubstr("the checksum of section \"layer."));
    }
  }
}

// Fails from a byte on.
class FailingSource final : public ByteSource {
 public:
  FailingSource(std::span<const std::byte> bytes, int64_t fails_from) : bytes_(bytes), fails_from_(fails_from) {}
  int64_t size() const override { return static_cast<int64_t>(bytes_.size()); }
  absl::StatusOr<std::span<const std::byte>> View(int64_t offset, std::span<std::byte> scratch) const override {
    const int64_t end = offset + static_cast<int64_t>(scratch.size());
    if (end > fails_from_ && end < size() - 4096) return absl::InternalError("injected: input/output error");
    std::copy_n(bytes_.begin() + offset, scratch.size(), scratch.begin());
    return std::span<const std::byte>(scratch);
  }

 private:
  const std::span<const std::byte> bytes_;
  const int64_t fails_from_;
};

TEST_F(SnapshotLayersTest, SourceThatFails_EndsTheReadWithItsError) {
  const auto snapshot = Numbered(1000);
  const File file = Written(*snapshot);
  for (const int64_t from : {int64_t{5000}, int64_t{5'000'000}, int64_t{15'000'000}}) {
    const auto loaded = ReadSnapshot(FailingSource(file, from), "test", here_, shape_, false);
    EXPECT_EQ(loaded.status().code(), absl::StatusCode::kInternal) << loaded.status();
  }
}

}  // namespace
}  // namespace statehouse::testing
