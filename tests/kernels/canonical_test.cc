// The canonical form of a head: out of one memory, into another, and on with the same bits.
#include "kernels/power_retention/canonical.h"

#include "tests/kernels/retention_fixture.h"

namespace statehouse::kernels {
namespace {

// All heads of a sequence, out and into a new memory.
void Move(RetentionSequence& from, RetentionSequence& to) {
  const RetentionLayout& layout = from.layout();
  for (int head = 0; head < layout.shape().heads_kv; ++head) {
    const float* region = layout.Head(from.memory().data(), head);
    const HeadExtent extent = ExtentOf(layout, region, from.position());
    ASSERT_TRUE(CheckExtent(layout, extent).ok()) << CheckExtent(layout, extent);
    std::vector<float> canonical(CanonicalFloats(layout, extent), NAN);
    ExportHead(layout, region, extent, canonical.data());
    for (const float number : canonical) ASSERT_FALSE(std::isnan(number)) << "a number that was not written";
    ImportHead(layout, canonical.data(), extent, layout.Head(to.memory().data(), head));
  }
  to.TakeBackTo(from.position());
}

TEST(Canonical, OutAndInAnywhere_GoesOnWithTheSameBits) {
  std::mt19937 rng = SeededRng(81);
  ThreadPool pool(2);
  for (const RetentionShape& shape : kShapes) {
    const RetentionProblem problem = RandomProblem(rng, shape, 260);
    const std::vector<float> uninterrupted = RunInPieces(problem, 40, pool);
    for (const int64_t position : {1, 7, 16, 24, 39, 40, 63, 64, 71, 72, 73, 95, 96, 127, 128, 129, 200, 259}) {
      std::vector<float> Y(problem.Q.size());
      RetentionSequence first(shape, pool);
      first.Step(problem, position, Y);
      RetentionSequence second(shape, pool);
      Move(first, second);
      second.Step(problem, problem.t - position, Y);
      ASSERT_TRUE(SameBits(Y, uninterrupted)) << "d " << shape.head_dim << ", moved at " << position;
    }
  }
}

TEST(Canonical, PartsOfAnySizeInAnyOrder_AreTheWhole) {
  std::mt19937 rng = SeededRng(83);
  ThreadPool pool(2);
  for (const RetentionShape& shape : kShapes) {
    const RetentionProblem problem = RandomProblem(rng, shape, 131);
    std::vector<float> Y(problem.Q.size());
    RetentionSequence sequence(shape, pool);
    sequence.Step(problem, problem.t, Y);
    const RetentionLayout& layout = sequence.layout();
    const float* const region = sequence.memory().data();
    const HeadExtent extent = ExtentOf(layout, region, problem.t);
    const size_t floats = static_cast<size_t>(CanonicalFloats(layout, extent));
    std::vector<float> whole(floats);
    ExportHead(layout, region, extent, whole.data());
    std::vector<float> imported(static_cast<size_t>(layout.head_floats()));
    ImportHead(layout, whole.data(), extent, imported.data());
    for (const int64_t most : {int64_t{1}, int64_t{100}, int64_t{1000}, int64_t{1} << 40}) {
      std::vector<float> in_parts(floats, NAN);
      std::vector<float> backwards(imported.size());
      ImportHeader(layout, extent, backwards.data());
      const std::vector<HeadPart> parts = PartsOf(layout, extent, most);
      size_t at = 0;
      for (const HeadPart& part : parts) {
        EXPECT_TRUE(part.floats <= most || part.count == 1);
        ExportPart(layout, region, extent, part, in_parts.data() + at);
        at += static_cast<size_t>(part.floats);
      }
      ASSERT_EQ(at, floats);
      EXPECT_TRUE(SameBits(in_parts, whole)) << "d " << shape.head_dim << ", parts of " << most;
      for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
        at -= static_cast<size_t>(part->floats);
        ImportPart(layout, whole.data() + at, extent, *part, backwards.data());
      }
      EXPECT_TRUE(SameBits(backwards, imported)) << "d " << shape.head_dim << ", parts of " << most;
    }
  }
}

TEST(Canonical, Rows_AreTheKeysAndValuesAsGiven) {
  std::mt19937 rng = SeededRng(82);
  ThreadPool pool(2);
  const RetentionShape& shape = kShapes[1];
  const RetentionProblem problem = RandomProblem(rng, shape, 131);
  std::vector<float> Y(problem.Q.size());
  RetentionSequence sequence(shape, pool);
  sequence.Step(problem, problem.t, Y);
  const HeadExtent extent = ExtentOf(sequence.layout(), sequence.memory().data(), problem.t);
  EXPECT_TRUE(extent.state_form);
  EXPECT_EQ(extent.folded, 96);
  ASSERT_EQ(extent.num_rows, 35);
  std::vector<float> canonical(CanonicalFloats(sequence.layout(), extent));
  ExportHead(sequence.layout(), sequence.memory().data(), extent, canonical.data());
  const int64_t d = shape.head_dim;
  const float* const K = canonical.data() + ExpandedSize(shape.head_dim, 2) * (d + 1);
  const float* const V = K + extent.num_rows * d;
  const float* const L = V + extent.num_rows * d;
  for (int64_t idx = 0; idx < extent.num_rows * d; ++idx) {
    ASSERT_EQ(K[idx], problem.K[96 * d + idx]);
    ASSERT_EQ(V[idx], problem.V[96 * d + idx]);
  }
  double sum = 0;
  for (int64_t idx = 0; idx < 24; ++idx) {
    sum += problem.log_G[96 + idx];
    EXPECT_NEAR(static_cast<double>(L[2 * idx]) + L[2 * idx + 1], sum, 1e-9);
  }
}

TEST(Canonical, ImpossibleExtents_AreRefused) {
  const RetentionLayout state = *RetentionLayout::Make(kShapes[1]);
  const RetentionLayout from_start = *RetentionLayout::Make(kShapes[0]);
  const RetentionLayout rows = *RetentionLayout::Make(kShapes[4]);
  EXPECT_TRUE(CheckExtent(state, {true, 48, 48}).ok());
  EXPECT_TRUE(CheckExtent(state, {false, 0, 72}).ok());
  EXPECT_FALSE(CheckExtent(state, {true, 50, 20}).ok());  // not at a chunk
  EXPECT_FALSE(CheckExtent(state, {true, 48, 49}).ok());  // more rows than the ring holds
  EXPECT_FALSE(CheckExtent(state, {true, -24, 10}).ok());
  EXPECT_FALSE(CheckExtent(state, {false, 24, 10}).ok());  // folded without a state
  EXPECT_FALSE(CheckExtent(state, {false, 0, 73}).ok());
  EXPECT_FALSE(CheckExtent(state, {false, 0, -1}).ok());
  EXPECT_FALSE(CheckExtent(from_start, {false, 0, 5}).ok());
  EXPECT_FALSE(CheckExtent(rows, {true, 7, 7}).ok());
}

}  // namespace
}  // namespace statehouse::kernels
