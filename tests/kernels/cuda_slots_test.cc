// Retention on slots on the GPU, beside the CPU's on the same layout; and, in deterministic mode, its bits.
#include <algorithm>
#include <bit>
#include <vector>

#include "kernels/power_retention/cuda/slot_retention.h"
#include "tests/kernels/cuda_slots_fixture.h"
#include "tests/kernels/retention_fixture.h"
#include "tests/support/gpu.h"

namespace statehouse::kernels {
namespace {

// Shapes of both forms, group sizes that fill and do not fill a tile, chunks that are and are not multiples of 32.
constexpr RetentionShape kGpuShapes[] = {
    {.heads_q = 4, .heads_kv = 2, .head_dim = 16, .chunk = 16, .switch_over = 0},
    {.heads_q = 6, .heads_kv = 2, .head_dim = 32, .chunk = 24, .switch_over = 72},
    {.heads_q = 5, .heads_kv = 1, .head_dim = 64, .chunk = 64, .switch_over = 128},
    {.heads_q = 24, .heads_kv = 2, .head_dim = 128, .chunk = 128, .switch_over = 256},
    {.heads_q = 20, .heads_kv = 1, .head_dim = 32, .chunk = 16, .switch_over = 32},
    {.heads_q = 2,
     .heads_kv = 1,
     .head_dim = 64,
     .degree = 4,
     .chunk = 32,
     .switch_over = kNeverSwitch,
     .max_tail_tokens = 1024},
};

// A whole sequence in steps of at most `piece` rows.
std::vector<float> RunInPieces(GpuSequences& sequences, size_t i, const std::vector<RetentionProblem>& problems,
                               int64_t piece) {
  std::vector<std::vector<float>> Y(problems.size());
  for (size_t j = 0; j < problems.size(); ++j) Y[j].resize(problems[j].Q.size());
  while (sequences.position(i) < problems[i].t) {
    std::vector<int64_t> rows(problems.size());
    rows[i] = sequences.Prepare(i, std::min(piece, problems[i].t - sequences.position(i)));
    sequences.Step(problems, rows, &Y);
    if (::testing::Test::HasFatalFailure()) break;
  }
  return Y[i];
}

// sqrt(Σ (out - want)²) / sqrt(Σ want²)
template <typename Want>
double RelativeError(const std::vector<float>& out, const std::vector<Want>& want) {
  double difference = 0, reference = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    difference += (out[i] - want[i]) * (out[i] - want[i]);
    reference += want[i] * want[i];
  }
  return std::sqrt(difference / reference);
}

class CudaSlots : public ::testing::Test {
 protected:
  void SetUp() override { testing::HasGpu(); }
  ThreadPool pool_{4};
};

TEST_F(CudaSlots, EveryFormAndCut_AgreesWithTheDefinition) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const RetentionShape& shape : kGpuShapes) {
    const std::vector<RetentionProblem> problems = {RandomProblem(rng, shape, 5 * shape.chunk + 37)};
    const std::vector<double> want = QuadraticReference(problems[0]);
    for (const SlotRetentionMode mode :
         {SlotRetentionMode::kFast, SlotRetentionMode::kDeterministic, SlotRetentionMode::kFastBf16}) {
      for (const int64_t piece : {kMaxRows, int64_t{50}, int64_t{1}}) {
        GpuSequences sequences(shape, mode, 1);
        const std::vector<float> Y = RunInPieces(sequences, 0, problems, piece);
        const double error = RelativeError(Y, want);
        EXPECT_LE(error, mode == SlotRetentionMode::kFastBf16 ? 1e-2 : 2e-5)
            << "d " << shape.head_dim << ", heads " << shape.heads_q << "/" << shape.heads_kv << ", pieces of " << piece
            << ", mode " << static_cast<int>(mode);
        std::printf("d %d piece %d mode %d error %.2g\n", shape.head_dim, static_cast<int>(piece),
                    static_cast<int>(mode), error);
      }
    }
  }
}

// One row each of so many sequences that a head's sums are made in many parts, in some, in one; the state folds on the
// way, and heads are as the product left them.
TEST_F(CudaSlots, NewRowsOfManySequences_AgreeWithTheDefinition) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  constexpr RetentionShape kShapes[] = {
      {.heads_q = 24, .heads_kv = 2, .head_dim = 128, .chunk = 64, .switch_over = 128},
      {.heads_q = 5, .heads_kv = 1, .head_dim = 64, .chunk = 24, .switch_over = 0},
  };
  for (const RetentionShape& shape : kShapes) {
    RawHeads raw(rng, shape);
    for (const size_t count : {1, 3, 20, 70, 140}) {
      GpuSequences sequences(shape, SlotRetentionMode::kFastBf16, static_cast<int>(count));
      const RetentionProblem drawn = RandomProblem(rng, shape, 5 * shape.chunk / 2);
      const std::vector<double> want = QuadraticReference(sequences.Prepared(drawn, &raw));
      const std::vector<RetentionProblem> problems(count, drawn);
      std::vector<std::vector<float>> Y(count, std::vector<float>(drawn.Q.size()));
      sequences.UseRawHeads(&raw);
      while (sequences.position(0) < drawn.t) {
        // The first chunk in pieces that kMaxRows rows hold.
        const bool begins = sequences.position(0) < shape.chunk;
        std::vector<int64_t> rows(count);
        for (size_t i = 0; i < count; ++i)
          rows[i] = sequences.Prepare(i, begins ? std::min<int64_t>(7, shape.chunk - sequences.position(0)) : 1);
        sequences.Step(problems, rows, &Y);
        ASSERT_FALSE(::testing::Test::HasFatalFailure());
      }
      EXPECT_GE(sequences.num_raw_steps(), drawn.t - shape.chunk);
      for (size_t i = 0; i < count; ++i) {
        EXPECT_LE(RelativeError(Y[i], want), 1e-2) << "d " << shape.head_dim << ", sequence " << i << " of " << count;
      }
    }
  }
}

// Long pieces go through the forward pass of whole sequences, short ones and single rows through waves; each goes on
// from what the other left in the slot.
TEST_F(CudaSlots, LongPieces_LeaveWhatShortOnesGoOnFrom) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  constexpr RetentionShape kShapes[] = {
      {.heads_q = 6, .heads_kv = 2, .head_dim = 128, .chunk = 128, .switch_over = 256},
      {.heads_q = 4, .heads_kv = 1, .head_dim = 64, .chunk = 64, .switch_over = 0},
      {.heads_q = 4, .heads_kv = 2, .head_dim = 64, .chunk = 64, .switch_over = 1024},
      {.heads_q = 4, .heads_kv = 2, .head_dim = 64, .chunk = 64, .switch_over = 2240},
  };
  for (const RetentionShape& shape : kShapes) {
    const std::vector<RetentionProblem> problems = {RandomProblem(rng, shape, 3300)};
    const std::vector<double> want = QuadraticReference(problems[0]);
    const int64_t q_width = int64_t{shape.heads_q} * shape.head_dim;
    // The first piece may end at the switch-over. Then: past a chunk's begin, at one, just before one.
    for (const int64_t second : {int64_t{600}, 8 * shape.chunk + 512, 10 * shape.chunk - 1}) {
      GpuSequences sequences(shape, SlotRetentionMode::kFastBf16, 1, true);
      std::vector<std::vector<float>> Y = {std::vector<float>(problems[0].Q.size())};
      for (const int64_t piece : {int64_t{1024}, second, int64_t{70}, int64_t{1}, int64_t{1}, int64_t{513}}) {
        int64_t left = piece;
        while (left > 0) {
          const int64_t rows = sequences.Prepare(0, std::min(left, kMaxRows));
          sequences.Step(problems, {rows}, &Y);
          ASSERT_FALSE(::testing::Test::HasFatalFailure());
          left -= rows;
        }
        const int64_t done = sequences.position(0) * q_width, from = std::max<int64_t>(0, done - piece * q_width);
        const double error = RelativeError(std::vector<float>(Y[0].begin() + from, Y[0].begin() + done),
                                           std::vector<double>(want.begin() + from, want.begin() + done));
        EXPECT_LE(error, 1e-2) << "d " << shape.head_dim << ", switch-over " << shape.switch_over << ", second piece "
                               << second << ", piece of " << piece << " up to " << sequences.position(0);
      }
    }
  }
}

TEST_F(CudaSlots, DeterministicMode_HasTheSameBitsForEveryCutAndCompany) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const RetentionShape& shape : kGpuShapes) {
    SCOPED_TRACE(shape.head_dim);
    std::vector<RetentionProblem> problems;
    for (int i = 0; i < 3; ++i) problems.push_back(RandomProblem(rng, shape, 4 * shape.chunk + 19 * i + 5));
    GpuSequences whole(shape, SlotRetentionMode::kDeterministic, 3),
        single(shape, SlotRetentionMode::kDeterministic, 3);
    const std::vector<float> one = RunInPieces(whole, 1, problems, kMaxRows);
    EXPECT_TRUE(SameBits(one, RunInPieces(single, 1, problems, 1))) << "token by token differs";
    EXPECT_TRUE(SameBits(whole.Memory(1), single.Memory(1)));
    // Among others, in random pieces.
    GpuSequences mixed(shape, SlotRetentionMode::kDeterministic, 3);
    std::vector<std::vector<float>> Y(3);
    for (int i = 0; i < 3; ++i) Y[i].resize(problems[i].Q.size());
    while (mixed.position(1) < problems[1].t && !HasFatalFailure()) {
      std::vector<int64_t> rows(3);
      for (int i = 0; i < 3; ++i) {
        const int64_t left = problems[i].t - mixed.position(i);
        rows[i] = mixed.Prepare(i, std::min<int64_t>(left, rng() % 3 == 0 ? 1 : rng() % 60));
      }
      mixed.Step(problems, rows, &Y);
    }
    EXPECT_TRUE(SameBits(one, Y[1])) << "company changes bits";
  }
}

TEST_F(CudaSlots, ASlotOfTheCpu_GoesOnHereAndTheOtherWayRound) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const RetentionShape& shape : kGpuShapes) {
    SCOPED_TRACE(shape.head_dim);
    const std::vector<RetentionProblem> problems = {RandomProblem(rng, shape, 5 * shape.chunk + 11)};
    const std::vector<double> want = QuadraticReference(problems[0]);
    const int64_t half = 3 * shape.chunk + 5, q_width = int64_t{shape.heads_q} * shape.head_dim;
    std::vector<float> Y(problems[0].Q.size());
    RetentionSequence cpu(shape, pool_);
    cpu.Step(problems[0], half, Y);
    GpuSequences gpu(shape, SlotRetentionMode::kFast, 1);
    gpu.SetMemory(0, cpu.memory(), half);
    const std::vector<float> rest = RunInPieces(gpu, 0, problems, 40);
    std::copy(rest.begin() + half * q_width, rest.end(), Y.begin() + half * q_width);
    EXPECT_LE(RelativeError(Y, want), 2e-5);
    // Two rows more on the CPU, from the GPU's memory: its last row is taken back first.
    RetentionSequence back(shape, pool_);
    back.memory() = gpu.Memory(0);
    back.TakeBackTo(problems[0].t - 2);
    std::vector<float> again = Y;
    back.Step(problems[0], 2, again);
    EXPECT_LE(RelativeError(again, want), 2e-5);
  }
}

TEST(CudaSlotShapes, WithoutKernels_AreNamed) {
  const auto layout = RetentionLayout::Make({.heads_q = 2, .heads_kv = 1, .head_dim = 48});
  ASSERT_TRUE(layout.ok());
  const absl::Status status = SlotRetention::CheckSupport(*layout);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(std::string(status.message()).find("head_dim 48"), std::string::npos);
}

}  // namespace
}  // namespace statehouse::kernels
