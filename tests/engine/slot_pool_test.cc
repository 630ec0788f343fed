#include "engine/state/slot_pool.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/slot_shapes.h"

namespace statehouse {
namespace {

SlotShape MakeShape(int64_t switch_over = 64) {
  return testing::MakeSlotShape({.heads = 2, .head_dim = 8, .chunk = 16, .switch_over = switch_over, .num_layers = 3});
}

class SlotPoolTest : public ::testing::Test {
 protected:
  SlotShape shape_ = MakeShape();
  std::unique_ptr<SlotPool> pool_ = SlotPool::Create(shape_, 3).value();

  // Writes what a sequence of `position` tokens can have written.
  void Dirty(int32_t slot, int64_t position, float value) {
    pool_->NoteUse(slot, position);
    for (int64_t region = 0; region < shape_.num_regions(); ++region) {
      float* const begin = pool_->memory(slot) + region * shape_.region_floats();
      std::fill(begin, begin + shape_.layout.UsedHeadFloats(position), value);
    }
  }
  bool IsZero(int32_t slot) {
    const float* const begin = pool_->memory(slot);
    return std::all_of(begin, begin + shape_.floats(), [](float x) { return x == 0; });
  }
};

TEST_F(SlotPoolTest, ReleasedSlot_IsFreeOnlyOnceZeroed) {
  const int32_t slot = pool_->Take();
  Dirty(slot, 70, 1);
  pool_->Release(slot);
  EXPECT_EQ(pool_->num_free(), 2);
  EXPECT_EQ(pool_->num_zeroing(), 1);
  EXPECT_EQ(pool_->num_used(), 0);
  const int64_t used_bytes = shape_.layout.UsedHeadFloats(70) * shape_.num_regions() * 4;
  int64_t zeroed = 0;
  while (pool_->num_zeroing() > 0) {
    const int64_t bytes = pool_->ZeroSlice(1000);
    ASSERT_GT(bytes, 0);
    ASSERT_LE(bytes, 1000);
    zeroed += bytes;
  }
  EXPECT_EQ(zeroed, used_bytes);
  EXPECT_TRUE(IsZero(slot));
  EXPECT_EQ(pool_->num_free(), 3);
  EXPECT_EQ(pool_->ZeroSlice(1000), 0);
}

TEST_F(SlotPoolTest, ShortSequence_CostsOnlyItsOwnPartToZero) {
  const int32_t slot = pool_->Take();
  Dirty(slot, 5, 1);
  pool_->Release(slot);
  const int64_t bytes = pool_->ZeroSlice(int64_t{1} << 40);
  EXPECT_EQ(bytes, shape_.layout.UsedHeadFloats(5) * shape_.num_regions() * 4);
  EXPECT_LT(bytes, shape_.bytes() / 2);
  EXPECT_TRUE(IsZero(slot));
}

TEST_F(SlotPoolTest, UntouchedSlot_IsFreeAtOnce) {
  const int32_t slot = pool_->Take();
  pool_->Release(slot);
  EXPECT_EQ(pool_->num_free(), 3);
  EXPECT_EQ(pool_->num_zeroing(), 0);
}

TEST_F(SlotPoolTest, FormChange_ZeroesEverything) {
  const int32_t slot = pool_->Take();
  pool_->NoteUse(slot, 64);
  pool_->NoteFullUse(slot);
  std::fill(pool_->memory(slot), pool_->memory(slot) + shape_.floats(), 1.0f);
  pool_->Release(slot);
  while (pool_->ZeroSlice(12345) > 0) {
  }
  EXPECT_TRUE(IsZero(slot));
}

TEST_F(SlotPoolTest, SeveralReleased_AreZeroedInOneSliceIfItReaches) {
  for (int idx = 0; idx < 3; ++idx) Dirty(pool_->Take(), 20, 1);
  for (int32_t slot = 0; slot < 3; ++slot) pool_->Release(slot);
  pool_->ZeroSlice(int64_t{1} << 40);
  EXPECT_EQ(pool_->num_free(), 3);
}

TEST_F(SlotPoolTest, Fork_CopiesTheUsedPartInSlices) {
  for (const int64_t position : {1, 16, 63, 64, 65, 200}) {
    const int32_t from = pool_->Take();
    const int32_t to = pool_->Take();
    Dirty(from, position, static_cast<float>(position));
    int64_t progress = 0;
    int64_t copied = 0;
    while (progress != SlotPool::kCopied) copied += pool_->CopySlice(from, to, position, 900, &progress);
    EXPECT_EQ(copied, shape_.layout.UsedHeadFloats(position) * shape_.num_regions() * 4);
    EXPECT_TRUE(std::equal(pool_->memory(from), pool_->memory(from) + shape_.floats(), pool_->memory(to)));
    pool_->Release(from);
    pool_->Release(to);
    while (pool_->ZeroSlice(1 << 20) > 0) {
    }
    EXPECT_TRUE(IsZero(from) && IsZero(to)) << position;
  }
}

TEST_F(SlotPoolTest, AbandonedFork_IsZeroedToo) {
  const int32_t from = pool_->Take();
  const int32_t to = pool_->Take();
  Dirty(from, 100, 3);
  int64_t progress = 0;
  pool_->CopySlice(from, to, 100, 5000, &progress);
  pool_->Release(to);
  while (pool_->ZeroSlice(1 << 20) > 0) {
  }
  EXPECT_TRUE(IsZero(to));
}

TEST_F(SlotPoolTest, Slots_AreAlignedAndApart) {
  EXPECT_EQ(reinterpret_cast<uintptr_t>(pool_->memory(1)) % 128, 0u);
  EXPECT_GE(pool_->memory(1) - pool_->memory(0), shape_.floats());
}

TEST(SlotPoolCreateTest, MoreThanTheHostHas_SaysNeededAndAvailable) {
  const absl::Status status = SlotPool::Create(MakeShape(), int64_t{1} << 40).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("available"), absl::string_view::npos);
}

}  // namespace
}  // namespace statehouse
