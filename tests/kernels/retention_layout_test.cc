#include "kernels/power_retention/layout.h"

#include <gtest/gtest.h>

namespace statehouse::kernels {
namespace {

RetentionShape PowerCoderShape() { return {.heads_q = 24, .heads_kv = 2, .head_dim = 128}; }

TEST(RetentionLayout, ExpandedSize_IsTheNumberOfMonomials) {
  EXPECT_EQ(ExpandedSize(64, 2), 2080);
  EXPECT_EQ(ExpandedSize(128, 2), 8256);
  EXPECT_EQ(ExpandedSize(1, 2), 1);
  EXPECT_EQ(ExpandedSize(1, 4), 1);
  EXPECT_EQ(ExpandedSize(32, 4), 52360);
  EXPECT_EQ(ExpandedSize(256, 2), 32896);
}

TEST(RetentionLayout, AutoSwitchOver_IsWhereRowsFillTheStatesBytes) {
  const absl::StatusOr<RetentionLayout> layout = RetentionLayout::Make(PowerCoderShape());
  ASSERT_TRUE(layout.ok());
  // 8256·129 numbers of state against 257 per row: 4144 rows, rounded down to chunks of 128.
  EXPECT_EQ(layout->shape().switch_over, 4096);
  EXPECT_FLOAT_EQ(layout->shape().scale, 0.088388348f);
  // A slot is the state and one tail of 2 C rows, up to 1 %.
  const int64_t numbers = 8256 * 129 + 2 * 128 * 257;
  EXPECT_GE(layout->head_floats(), numbers);
  EXPECT_LE(layout->head_floats(), numbers * 101 / 100);
  EXPECT_EQ(layout->layer_floats(), 2 * layout->head_floats());
}

TEST(RetentionLayout, TailStart_LeavesTheLastChunkAndTheCurrentOne) {
  RetentionShape shape = PowerCoderShape();
  shape.chunk = 16;
  shape.switch_over = 64;
  const absl::StatusOr<RetentionLayout> layout = RetentionLayout::Make(shape);
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(layout->TailStart(0), 0);
  EXPECT_EQ(layout->TailStart(63), 0);
  EXPECT_EQ(layout->TailStart(64), 48);
  EXPECT_EQ(layout->TailStart(79), 48);
  EXPECT_EQ(layout->TailStart(80), 64);
  EXPECT_FALSE(layout->InStateForm(63));
  EXPECT_TRUE(layout->InStateForm(64));
}

TEST(RetentionLayout, Parts_LieWithinTheRegionAndDoNotOverlap) {
  for (const int64_t switch_over : {int64_t{0}, int64_t{40}, int64_t{400}, kSwitchOverAuto, kNeverSwitch}) {
    for (const int head_dim : {1, 3, 17, 32, 63}) {
      RetentionShape shape{.heads_q = 4, .heads_kv = 2, .head_dim = head_dim, .chunk = 10, .switch_over = switch_over};
      if (switch_over == kNeverSwitch) shape.max_tail_tokens = 95;
      const absl::StatusOr<RetentionLayout> layout = RetentionLayout::Make(shape);
      ASSERT_TRUE(layout.ok()) << layout.status();
      float* base = nullptr;
      const int64_t head = layout->head_floats();
      EXPECT_EQ(head % 32, 0);
      if (!layout->has_state()) {
        EXPECT_EQ(layout->RowsBlock(base, 0, 9) - base + layout->block_floats(), head);
        continue;
      }
      EXPECT_GE(layout->Normalizer(base, 0) - layout->State(base, 0), layout->expanded() * layout->padded_dim());
      EXPECT_GE(layout->TailBlock(base, 0, 0) - layout->Normalizer(base, 0), layout->expanded());
      EXPECT_EQ(layout->TailBlock(base, 0, 7) - layout->TailBlock(base, 0, 4), layout->block_floats());
      EXPECT_LE(layout->TailBlock(base, 0, 1) - base + layout->block_floats(), head);
      const int64_t rows_blocks = layout->shape().switch_over / 10;
      EXPECT_LE(layout->RowsBlock(base, 0, rows_blocks) - base, head);
      EXPECT_EQ(layout->Head(base, 1) - base, head);
    }
  }
}

TEST(RetentionLayout, UsedFloats_GrowWithRowsAndStayWithinTheRegion) {
  RetentionShape shape = PowerCoderShape();
  const absl::StatusOr<RetentionLayout> layout = RetentionLayout::Make(shape);
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(layout->UsedHeadFloats(0), 0);
  int64_t last = 0;
  for (int64_t position = 1; position < 6000; position += 37) {
    const int64_t used = layout->UsedHeadFloats(position);
    EXPECT_GE(used, last);
    EXPECT_LE(used, layout->head_floats());
    last = used;
  }
  EXPECT_EQ(layout->UsedHeadFloats(1), layout->UsedHeadFloats(128));
  EXPECT_EQ(layout->UsedHeadFloats(4096), layout->head_floats());
}

TEST(RetentionLayout, WrongShapes_AreRefusedByField) {
  const auto message = [](const RetentionShape& shape) {
    return std::string(RetentionLayout::Make(shape).status().message());
  };
  const RetentionShape good = PowerCoderShape();
  RetentionShape shape = good;
  shape.heads_q = 25;
  EXPECT_NE(message(shape).find("heads_q is 25"), std::string::npos);
  shape = good;
  shape.heads_kv = 0;
  EXPECT_NE(message(shape).find("heads_kv is 0"), std::string::npos);
  shape = good;
  shape.head_dim = 257;
  EXPECT_NE(message(shape).find("head_dim is 257"), std::string::npos);
  shape = good;
  shape.chunk = 0;
  EXPECT_NE(message(shape).find("chunk is 0"), std::string::npos);
  shape = good;
  shape.switch_over = 100;
  EXPECT_NE(message(shape).find("switch_over is 100"), std::string::npos);
  shape = good;
  shape.scale = -1;
  EXPECT_NE(message(shape).find("scale is -1"), std::string::npos);
  shape = good;
  shape.max_tail_tokens = 5;
  EXPECT_NE(message(shape).find("max_tail_tokens is 5"), std::string::npos);
  shape = good;
  shape.switch_over = kNeverSwitch;
  EXPECT_NE(message(shape).find("max_tail_tokens is 0"), std::string::npos);
}

TEST(RetentionLayout, FormsThatDoNotExist_AreUnimplemented) {
  RetentionShape shape = PowerCoderShape();
  shape.degree = 3;
  EXPECT_EQ(RetentionLayout::Make(shape).status().code(), absl::StatusCode::kUnimplemented);
  shape.degree = 4;
  const absl::Status status = RetentionLayout::Make(shape).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(status.message().find("degree 4 with head_dim 128"), std::string::npos) << status;
  shape.switch_over = kNeverSwitch;
  shape.max_tail_tokens = 100;
  EXPECT_TRUE(RetentionLayout::Make(shape).ok());
  shape = {.heads_q = 1, .heads_kv = 1, .head_dim = 32, .degree = 4};
  EXPECT_TRUE(RetentionLayout::Make(shape).ok());
}

}  // namespace
}  // namespace statehouse::kernels
