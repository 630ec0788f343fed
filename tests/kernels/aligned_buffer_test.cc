#include "kernels/math/aligned_buffer.h"

#include <utility>

#include "gtest/gtest.h"

namespace statehouse::kernels {
namespace {

TEST(AlignedBuffer, AnySize_IsAlignedZeroAndWritable) {
  for (const int64_t size : {int64_t{1}, int64_t{127}, int64_t{128}, int64_t{100'000}, (int64_t{2} << 20) - 1,
                             int64_t{2} << 20, (int64_t{2} << 20) + 1, int64_t{9'000'001}}) {
    AlignedBuffer buffer;
    ASSERT_TRUE(buffer.Allocate(size));
    EXPECT_EQ(buffer.size(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 128, 0u);
    for (int64_t i = 0; i < size; i += 61) ASSERT_EQ(buffer.data()[i], std::byte{0});
    for (int64_t i = 0; i < size; ++i) buffer.data()[i] = std::byte{1};
  }
}

TEST(AlignedBuffer, NothingToAllocate_IsEmptyAndGood) {
  AlignedBuffer buffer;
  EXPECT_TRUE(buffer.Allocate(0));
  EXPECT_EQ(buffer.size(), 0);
}

TEST(AlignedBuffer, MoreThanAnyMachineHas_FailsAndLeavesItEmpty) {
  AlignedBuffer buffer;
  ASSERT_TRUE(buffer.Allocate(64));
  EXPECT_FALSE(buffer.Allocate(INT64_MAX));
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_EQ(buffer.size(), 0);
  EXPECT_FALSE(buffer.Allocate(-1));
  EXPECT_FALSE(buffer.Allocate(int64_t{1} << 47));
}

TEST(AlignedBuffer, Moved_LeavesTheSourceEmpty) {
  AlignedBuffer a;
  ASSERT_TRUE(a.Allocate(3 << 20));
  a.as<int>()[5] = 7;
  AlignedBuffer b = std::move(a);
  EXPECT_EQ(b.as<int>()[5], 7);
  AlignedBuffer c;
  ASSERT_TRUE(c.Allocate(10));
  c = std::move(b);
  EXPECT_EQ(c.as<int>()[5], 7);
  EXPECT_EQ(c.size(), 3 << 20);
}

TEST(AlignedBuffer, AllocatedAgain_IsZeroAgain) {
  AlignedBuffer buffer;
  ASSERT_TRUE(buffer.Allocate(4096));
  buffer.as<int>()[0] = 1;
  ASSERT_TRUE(buffer.Allocate(4096));
  EXPECT_EQ(buffer.as<int>()[0], 0);
}

}  // namespace
}  // namespace statehouse::kernels
