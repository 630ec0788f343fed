// Memory for snapshots: which lie in page-locked blocks, that blocks are used again, and that nothing of an earlier one
// shows.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <thread>

#include "engine/state/snapshot.h"
#include "engine/state/snapshot_memory.h"
#include "tests/support/slot_shapes.h"

namespace statehouse::testing {
namespace {

using Contents = SnapshotMemory::Contents;
using ::testing::HasSubstr;

constexpr int64_t kBlock = 1000;

// Keeps book of what is locked.
class FakeLocker final : public PageLocker {
 public:
  absl::Status Lock(std::span<std::byte> memory) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (num_calls_ == most_) return absl::ResourceExhaustedError("the limit is reached");
    ++num_calls_;
    EXPECT_TRUE(locked_.emplace(memory.data(), memory.size()).second) << "locked twice";
    return absl::OkStatus();
  }
  void Unlock(std::span<std::byte> memory) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = locked_.find(memory.data());
    ASSERT_NE(found, locked_.end()) << "never locked";
    EXPECT_EQ(found->second, memory.size());
    locked_.erase(found);
  }
  void RefuseAfter(int64_t calls) { most_ = calls; }
  size_t num_locked() const { return locked_.size(); }
  int64_t num_calls() const { return num_calls_; }

 private:
  std::mutex mutex_;
  std::map<std::byte*, size_t> locked_;
  int64_t num_calls_ = 0, most_ = 1000;
};

class SnapshotMemoryTest : public ::testing::Test {
 protected:
  std::shared_ptr<SnapshotMemory> Make(int64_t num_blocks, int64_t block_bytes = kBlock) {
    return SnapshotMemory::Make({.block_bytes = block_bytes, .num_blocks = num_blocks}, locker_);
  }
  const std::shared_ptr<FakeLocker> locker_ = std::make_shared<FakeLocker>();
};

TEST_F(SnapshotMemoryTest, WhatFillsABlock_LiesInOne_AndWhatIsShortDoesNot) {
  const auto memory = Make(8);
  for (const int64_t bytes : {750, 999, 1000}) {
    const SnapshotBuffer buffer = memory->Take(bytes, Contents::kUndefined);
    EXPECT_TRUE(buffer.is_page_locked()) << bytes;
    EXPECT_EQ(buffer.bytes(), kBlock) << bytes;
  }
  for (const int64_t bytes : {1, 749, 1001}) {
    const SnapshotBuffer buffer = memory->Take(bytes, Contents::kUndefined);
    EXPECT_FALSE(buffer.is_page_locked()) << bytes;
    EXPECT_EQ(buffer.bytes(), bytes);
  }
}

TEST_F(SnapshotMemoryTest, BlockOfASnapshotThatWent_IsUsedAgainWithoutLocking) {
  const auto memory = Make(2);
  for (int turn = 0; turn < 10; ++turn) {
    const SnapshotBuffer a = memory->Take(kBlock, Contents::kUndefined), b = memory->Take(kBlock, Contents::kUndefined);
    EXPECT_TRUE(a.is_page_locked() && b.is_page_locked());
  }
  EXPECT_EQ(locker_->num_calls(), 2);
  EXPECT_EQ(memory->totals().free_bytes, 2 * kBlock);
  EXPECT_EQ(memory->totals().no_block, 0);
}

TEST_F(SnapshotMemoryTest, WhatIsAskedForAsZero_ShowsNothingOfTheSnapshotBefore) {
  const auto memory = Make(1);
  {
    SnapshotBuffer secret = memory->Take(kBlock, Contents::kUndefined);
    std::fill_n(secret.as<char>(), kBlock, 's');
  }
  const SnapshotBuffer next = memory->Take(800, Contents::kZero);
  ASSERT_TRUE(next.is_page_locked());
  EXPECT_EQ(std::count(next.as<char>(), next.as<char>() + kBlock, 0), kBlock);
}

TEST_F(SnapshotMemoryTest, WhereNoBlockIsFree_MemoryIsOrdinaryAndCounted) {
  const auto memory = Make(1);
  const SnapshotBuffer first = memory->Take(kBlock, Contents::kUndefined);
  const SnapshotBuffer second = memory->Take(kBlock, Contents::kUndefined);
  EXPECT_TRUE(first.is_page_locked());
  EXPECT_FALSE(second.is_page_locked());
  EXPECT_EQ(second.bytes(), kBlock);
  EXPECT_EQ(memory->totals().locked_bytes, kBlock);
  EXPECT_EQ(memory->totals().no_block, 1);
  EXPECT_TRUE(memory->why_fewer().ok());
}

TEST_F(SnapshotMemoryTest, SystemThatLocksNoMore_IsNamed_AndWhatItLockedServes) {
  locker_->RefuseAfter(2);
  const auto memory = Make(8);
  EXPECT_THAT(std::string(memory->why_fewer().message()), HasSubstr("the limit is reached"));
  EXPECT_EQ(memory->locked_bytes(), 2 * kBlock);
  const SnapshotBuffer a = memory->Take(kBlock, Contents::kUndefined), b = memory->Take(kBlock, Contents::kUndefined);
  EXPECT_TRUE(a.is_page_locked() && b.is_page_locked());
  EXPECT_FALSE(memory->Take(kBlock, Contents::kUndefined).is_page_locked());
}

TEST_F(SnapshotMemoryTest, WithoutALockerOrBlocks_AllIsOrdinary) {
  const auto without = SnapshotMemory::Make({.block_bytes = kBlock, .num_blocks = 8}, nullptr);
  for (const auto& memory : {without, Make(0)}) {
    EXPECT_FALSE(memory->Take(kBlock, Contents::kZero).is_page_locked());
    EXPECT_EQ(memory->totals().no_block, 0);
    EXPECT_EQ(memory->locked_bytes(), 0);
  }
}

TEST_F(SnapshotMemoryTest, BufferThatTurnsOutShort_LeavesItsBlockToOthers) {
  const auto memory = Make(1);
  SnapshotBuffer buffer = memory->Take(kBlock, Contents::kUndefined);
  std::fill_n(buffer.as<char>(), kBlock, 'x');
  buffer.Shrink(900);
  EXPECT_TRUE(buffer.is_page_locked());
  buffer.Shrink(100);
  EXPECT_FALSE(buffer.is_page_locked());
  EXPECT_EQ(buffer.bytes(), 100);
  EXPECT_EQ(std::count(buffer.as<char>(), buffer.as<char>() + 100, 'x'), 100);
  EXPECT_TRUE(memory->Take(kBlock, Contents::kUndefined).is_page_locked());
}

TEST_F(SnapshotMemoryTest, BuffersThatOutliveTheirMaker_AreUnlockedWhenTheyGo) {
  SnapshotBuffer kept;
  {
    const auto memory = Make(2);
    kept = memory->Take(kBlock, Contents::kUndefined);
    const SnapshotBuffer gone = memory->Take(kBlock, Contents::kUndefined);
  }
  EXPECT_EQ(locker_->num_locked(), 2u);
  kept = {};
  EXPECT_EQ(locker_->num_locked(), 0u);
}

TEST_F(SnapshotMemoryTest, ManyThreads_NeverShareABlockNorPassTheBound) {
  const auto memory = Make(3);
  std::vector<std::thread> threads;
  for (int id = 1; id <= 6; ++id) {
    threads.emplace_back([&memory, id] {
      for (int turn = 0; turn < 2000; ++turn) {
        SnapshotBuffer buffer = memory->Take(kBlock, Contents::kUndefined);
        std::fill_n(buffer.as<char>(), kBlock, static_cast<char>(id));
        std::this_thread::yield();
        ASSERT_EQ(std::count(buffer.as<char>(), buffer.as<char>() + kBlock, static_cast<char>(id)), kBlock);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(locker_->num_calls(), 3);
  EXPECT_EQ(memory->totals().free_bytes, memory->totals().locked_bytes);
}

TEST_F(SnapshotMemoryTest, NumberOfBlocks_IsWhatFits_AndMoreThanTheHostHasIsRefused) {
  const auto blocks = [](int64_t asked, std::optional<int64_t> available) {
    return SnapshotMemory::NumBlocks(asked, kBlock, available);
  };
  EXPECT_EQ(*blocks(0, std::nullopt), SnapshotMemory::kUsualBlocks);
  EXPECT_EQ(*blocks(0, 1000 * kBlock), SnapshotMemory::kUsualBlocks);
  EXPECT_EQ(*blocks(0, 24 * kBlock), 3);
  EXPECT_EQ(*blocks(0, kBlock), 0);
  EXPECT_EQ(*blocks(5 * kBlock + 1, 24 * kBlock), 5);
  EXPECT_EQ(*blocks(kBlock - 1, std::nullopt), 0);
  EXPECT_EQ(*blocks(24 * kBlock, 24 * kBlock), 24);
  EXPECT_THAT(std::string(blocks(24 * kBlock + 1, 24 * kBlock).status().message()),
              AllOf(HasSubstr("24001 bytes"), HasSubstr("at most the 24000")));
}

TEST_F(SnapshotMemoryTest, DraftThatIsNeverFilled_GivesItsBlockBack) {
  const auto memory = Make(1, MakeSlotShape({}).bytes());
  {
    const auto draft = SnapshotDraft::Reserve(MakeSlotShape({}), 10, memory.get(), 100).value();
    EXPECT_EQ(memory->totals().free_bytes, 0);
  }
  EXPECT_EQ(memory->totals().free_bytes, memory->locked_bytes());
}

TEST_F(SnapshotMemoryTest, DraftOfALongSequence_IsABlock_AndCountsWhatItHolds) {
  const SlotShape shape = MakeSlotShape({});
  const auto memory = Make(1, shape.bytes());
  const auto sealed_at = [&](int64_t expected, int64_t position) {
    const auto draft = SnapshotDraft::Reserve(shape, 10, memory.get(), expected).value();
    draft->Begin({.position = position, .used_floats = shape.layout.UsedHeadFloats(position)});
    draft->MarkFilled();
    return draft->Seal(std::vector<int32_t>(static_cast<size_t>(position), 1));
  };
  const int64_t of_tokens = 40 * static_cast<int64_t>(sizeof(int32_t));
  const int64_t of_regions = shape.layout.UsedHeadFloats(40) * 2 * static_cast<int64_t>(sizeof(float));
  const auto in_block = sealed_at(40, 40);
  EXPECT_TRUE(in_block->is_page_locked());
  EXPECT_EQ(in_block->bytes(), of_regions + of_tokens);
  EXPECT_FALSE(sealed_at(40, 40)->is_page_locked());  // all blocks are in use
  EXPECT_FALSE(sealed_at(3, 3)->is_page_locked());
}

TEST_F(SnapshotMemoryTest, DraftOfASequenceThatMayGoHoweverFar_IsABlock) {
  const SlotShape with_state = MakeSlotShape({});
  const SlotShape rows_alone = MakeSlotShape({.switch_over = kernels::kNeverSwitch, .max_tail_tokens = 1000});
  for (const SlotShape& shape : {with_state, rows_alone}) {
    const auto memory = Make(1, shape.bytes());
    for (const int64_t position : {int64_t{1000}, int64_t{1} << 53}) {
      SCOPED_TRACE(position);
      const auto draft = SnapshotDraft::Reserve(shape, 10, memory.get(), position).value();
      EXPECT_EQ(memory->totals().free_bytes, 0);
    }
  }
}

TEST_F(SnapshotMemoryTest, DraftWhoseSequenceStayedShort_GivesItsBlockBackWhenSealed) {
  const SlotShape shape = MakeSlotShape({});
  const auto memory = Make(1, shape.bytes());
  const auto draft = SnapshotDraft::Reserve(shape, 10, memory.get(), 100).value();
  ASSERT_EQ(memory->totals().locked_bytes - memory->totals().free_bytes, shape.bytes());
  draft->Begin({.position = 3, .used_floats = shape.layout.UsedHeadFloats(3)});
  draft->MarkFilled();
  const auto snapshot = draft->Seal({1, 2, 3});
  EXPECT_FALSE(snapshot->is_page_locked());
  EXPECT_EQ(memory->totals().free_bytes, shape.bytes());
}

}  // namespace
}  // namespace statehouse::testing
