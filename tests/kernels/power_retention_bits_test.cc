// Same bits: whatever the cuts into calls, the threads, the instruction set, the company, and what memory held beyond
// the tail.
#include "kernels/power_retention/power_retention.h"

#include "tests/kernels/retention_fixture.h"

namespace statehouse::kernels {
namespace {

TEST(PowerRetentionBits, AnyCutIntoCalls_GivesTheSame) {
  std::mt19937 rng = SeededRng(71);
  ThreadPool pool(2);
  for (const RetentionShape& shape : kShapes) {
    const RetentionProblem problem = RandomProblem(rng, shape, 260);
    const std::vector<float> token_by_token = RunInPieces(problem, 1, pool);
    for (const int64_t piece : {2, 7, 16, 63, 64, 65, 260}) {
      ASSERT_TRUE(SameBits(RunInPieces(problem, piece, pool), token_by_token)) << "pieces of " << piece;
    }
    for (int round = 0; round < 5; ++round) {
      std::vector<float> Y(problem.Q.size());
      RetentionSequence sequence(shape, pool);
      while (sequence.position() < problem.t) {
        const int64_t count = std::uniform_int_distribution<int64_t>(1, 90)(rng);
        sequence.Step(problem, std::min(count, problem.t - sequence.position()), Y);
      }
      ASSERT_TRUE(SameBits(Y, token_by_token)) << "round " << round;
    }
  }
}

TEST(PowerRetentionBits, ThreadsAndInstructionSets_GiveTheSame) {
  std::mt19937 rng = SeededRng(72);
  for (const RetentionShape& shape : kShapes) {
    const RetentionProblem problem = RandomProblem(rng, shape, 200);
    std::vector<float> first;
    ForEachTarget([&](int64_t) {
      for (int threads = 1; threads <= 4; ++threads) {
        ThreadPool pool(threads);
        for (const int64_t piece : {1, 200}) {
          const std::vector<float> Y = RunInPieces(problem, piece, pool);
          if (first.empty()) first = Y;
          ASSERT_TRUE(SameBits(Y, first)) << threads << " threads, pieces of " << piece;
        }
      }
    });
  }
}

TEST(PowerRetentionBits, MemoryBeyondThePosition_IsNeverRead) {
  std::mt19937 rng = SeededRng(73);
  ThreadPool pool(2);
  const float nan = std::nanf("");
  for (const RetentionShape& shape : kShapes) {
    const RetentionProblem problem = RandomProblem(rng, shape, 150);
    const std::vector<float> want = RunInPieces(problem, 1, pool);
    RetentionSequence sequence(shape, pool);
    std::vector<float> Y(problem.Q.size());
    while (sequence.position() < problem.t) {
      // Poison every row from the position to the end of its chunk: they may be left over from rows taken back.
      const RetentionLayout& layout = sequence.layout();
      const int64_t C = shape.chunk;
      const int64_t position = sequence.position();
      const bool at_switch = layout.has_state() && position == layout.shape().switch_over && position > 0;
      for (int head = 0; head < shape.heads_kv && !at_switch; ++head) {
        float* block = layout.InStateForm(position) ? layout.TailBlock(sequence.memory().data(), head, position / C)
                                                    : layout.RowsBlock(sequence.memory().data(), head, position / C);
        if (position % C == 0) continue;  // the block may still hold the chunk that is folded next
        for (int64_t c = position % C; c < C; ++c) {
          const int64_t panel = c / 32 * 32, width = std::min<int64_t>(32, layout.padded_chunk() - panel);
          for (int l = 0; l < shape.head_dim; ++l)
            layout.BlockK(block)[panel * shape.head_dim + l * width + c % 32] = nan;
          for (int64_t column = 0; column < layout.padded_dim(); column += 32) {
            const int64_t v_width = std::min<int64_t>(32, layout.padded_dim() - column);
            for (int64_t i = 0; i < v_width; ++i) layout.BlockV(block)[column * C + c * v_width + i] = nan;
          }
          layout.BlockL(block)[c] = nan;
          layout.BlockLRest(block)[c] = nan;
        }
      }
      sequence.Step(problem, std::min<int64_t>(1 + position % 5, problem.t - position), Y);
    }
    ASSERT_TRUE(SameBits(Y, want)) << "d " << shape.head_dim;
  }
}

TEST(PowerRetentionBits, RowsTakenBackWithinTheChunk_LeaveNoTrace) {
  std::mt19937 rng = SeededRng(74);
  ThreadPool pool(2);
  for (const RetentionShape& shape : kShapes) {
    const RetentionProblem problem = RandomProblem(rng, shape, 150);
    const RetentionProblem wrong = RandomProblem(rng, shape, 150);
    const std::vector<float> want = RunInPieces(problem, 1, pool);
    RetentionSequence sequence(shape, pool);
    std::vector<float> Y(problem.Q.size()), ignored(problem.Q.size());
    while (sequence.position() < problem.t) {
      const int64_t position = sequence.position();
      const int64_t room = std::min(problem.t - position, shape.chunk - position % shape.chunk);
      // Draft rows that turn out wrong, as many as fit before the next fold; then the right ones.
      if (position % shape.chunk != 0) {
        sequence.Step(wrong, room, ignored);
        sequence.TakeBackTo(position);
      }
      sequence.Step(problem, std::min<int64_t>(room, 3), Y);
    }
    ASSERT_TRUE(SameBits(Y, want)) << "d " << shape.head_dim;
  }
}

TEST(PowerRetentionBits, RowsTakenBackAcrossAFoldOrTheSwitchOver_AreStillRight) {
  std::mt19937 rng = SeededRng(75);
  ThreadPool pool(2);
  for (const RetentionShape& shape : kShapes) {
    const RetentionProblem problem = RandomProblem(rng, shape, 200);
    const std::vector<double> want = QuadraticReference(problem);
    RetentionSequence sequence(shape, pool);
    std::vector<float> Y(problem.Q.size());
    for (int64_t goal = 1; goal <= problem.t; goal += 11) {
      // Go a little further than wanted, then take back up to a chunk.
      const int64_t back = std::min({goal, shape.chunk, int64_t{1} + goal % 64});
      if (goal > sequence.position()) sequence.Step(problem, goal - sequence.position(), Y);
      sequence.TakeBackTo(sequence.position() - back);
      std::fill(Y.begin() + sequence.position() * shape.heads_q * shape.head_dim, Y.end(), 0.0f);
      sequence.Step(problem, back, Y);
    }
    sequence.Step(problem, problem.t - sequence.position(), Y);
    EXPECT_LE(RelativeError(Y, want), 2e-5) << "d " << shape.head_dim;
  }
}

TEST(PowerRetentionBits, MemoryCopiedAtAnyPosition_GoesOnTheSame) {
  std::mt19937 rng = SeededRng(76);
  ThreadPool pool(2);
  for (const RetentionShape& shape : kShapes) {
    const RetentionProblem problem = RandomProblem(rng, shape, 140);
    const std::vector<float> want = RunInPieces(problem, problem.t, pool);
    for (const int64_t at : {1, 19, 40, 41, 64, 72, 100, 139}) {
      RetentionSequence source(shape, pool);
      std::vector<float> Y(problem.Q.size());
      source.Step(problem, at, Y);
      // Only what UsedHeadFloats() says, into zeroed memory.
      RetentionSequence copy(shape, pool);
      const RetentionLayout& layout = copy.layout();
      for (int head = 0; head < shape.heads_kv; ++head) {
        std::copy_n(layout.Head(source.memory().data(), head), layout.UsedHeadFloats(at),
                    layout.Head(copy.memory().data(), head));
      }
      copy.TakeBackTo(at);
      copy.Step(problem, problem.t - at, Y);
      ASSERT_TRUE(SameBits(Y, want)) << "copied at " << at << ", d " << shape.head_dim;
    }
  }
}

TEST(PowerRetentionBits, SwitchOverTwice_DoesNothingTheSecondTime) {
  std::mt19937 rng = SeededRng(77);
  ThreadPool pool(2);
  const RetentionShape shape = kShapes[1];
  const RetentionProblem problem = RandomProblem(rng, shape, 100);
  RetentionSequence sequence(shape, pool);
  std::vector<float> Y(problem.Q.size());
  sequence.Step(problem, 73, Y);
  const std::vector<float> before = sequence.memory();
  RetentionScratch scratch;
  ASSERT_TRUE(scratch.Reserve(sequence.layout(), 10, 2).ok());
  SwitchOver(sequence.layout(), sequence.memory().data(), 0, scratch, pool);
  EXPECT_TRUE(SameBits(sequence.memory(), before));
}

}  // namespace
}  // namespace statehouse::kernels
