#include "kernels/math/aligned_buffer.h"

#include <unistd.h>

#include <fstream>
#include <utility>
#include <vector>

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

int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

void Fill(AlignedBuffer* buffer, int64_t bytes) {
  for (int64_t i = 0; i < bytes; ++i) buffer->data()[i] = static_cast<std::byte>(i % 251);
}

TEST(AlignedBuffer, Shrunk_KeepsWhatIsLeft) {
  for (const int64_t size : {int64_t{1000}, int64_t{5'000'000}, int64_t{80'000'001}}) {
    for (const int64_t left : {int64_t{0}, int64_t{1}, size / 7, size / 2, size - 1, size}) {
      AlignedBuffer buffer;
      ASSERT_TRUE(buffer.Allocate(size));
      Fill(&buffer, left);
      buffer.Shrink(left);
      ASSERT_EQ(buffer.size(), left);
      for (int64_t i = 0; i < left; i += 101) ASSERT_EQ(buffer.data()[i], static_cast<std::byte>(i % 251)) << i;
      Fill(&buffer, left);
    }
  }
}

TEST(AlignedBuffer, ManyOfWhichLittleIsWritten_TakeWhatTheirSizesSay) {
  constexpr int64_t kRoom = int64_t{5} << 20, kUsed = 700'000;
  constexpr int kCount = 200;
  const int64_t before = ResidentBytes();
  std::vector<AlignedBuffer> shrunk(kCount), whole(kCount / 10);
  for (AlignedBuffer& buffer : shrunk) {
    ASSERT_TRUE(buffer.Allocate(kRoom));
    Fill(&buffer, kUsed);
    buffer.Shrink(kUsed);
  }
  EXPECT_LT(ResidentBytes() - before, kCount * kUsed * 5 / 4);
  // A little more than a huge page does not take two.
  const int64_t between = ResidentBytes();
  for (AlignedBuffer& buffer : whole) {
    ASSERT_TRUE(buffer.Allocate((int64_t{2} << 20) + 5000));
    Fill(&buffer, buffer.size());
  }
  EXPECT_LT(ResidentBytes() - between, static_cast<int64_t>(whole.size()) * (int64_t{5} << 19));
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
