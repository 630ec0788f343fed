// Decode steps on the GPU against the definition in double. Skips where there is no GPU.
#include "kernels/power_retention/cuda/decode.h"
#include "kernels/power_retention/cuda/decode_states.h"

#include "tests/kernels/cuda_retention_fixture.h"
#include "tests/support/gpu.h"

namespace statehouse::kernels {
namespace {

constexpr RetentionDtype kBf16 = RetentionDtype::kBf16;

class CudaDecode : public ::testing::Test {
 protected:
  void SetUp() override { testing::HasGpu(); }
};

struct Sequence {
  RetentionProblem problem;  // all rows, the new ones included
  int64_t state_end = 0;
  int64_t position = 0;  // of the first new row
};

Sequence RandomSequence(std::mt19937& rng, const CudaRetentionSlotShape& shape, int64_t state_end, int64_t position,
                        int num_rows, float lowest_gate) {
  const RetentionShape plain = {
      .heads_q = shape.heads_q, .heads_kv = shape.heads_kv, .head_dim = shape.head_dim, .degree = shape.degree};
  Sequence sequence{RandomProblem(rng, plain, position + num_rows, lowest_gate), state_end, position};
  Round(sequence.problem.Q, shape.dtype), Round(sequence.problem.K, shape.dtype);
  Round(sequence.problem.V, shape.dtype);
  return sequence;
}

// What a decode call over some sequences works on.
class DecodeRun {
 public:
  DecodeRun(const RetentionSlotLayout& layout, std::vector<Sequence> sequences, int num_rows)
      : layout_(layout), sequences_(std::move(sequences)), num_rows_(num_rows) {
    std::vector<char*> addresses;
    std::vector<int64_t> state_ends;
    for (const Sequence& sequence : sequences_) {
      memory_.emplace_back();
      EXPECT_TRUE(memory_.back().Allocate(layout_.bytes()).ok());
      EXPECT_EQ(cudaMemset(memory_.back().as<char>(), 0xff, layout_.bytes()), cudaSuccess);
      addresses.push_back(memory_.back().as<char>());
      state_ends.push_back(sequence.state_end);
      states_.push_back(sequence.state_end > 0 ? Fold(sequence, memory_.back()) : DeviceState());
    }
    addresses_ = OnDevice(addresses);
    state_ends_ = OnDevice(state_ends);
    FillTails();
  }

  // `is_settled`: see CudaRetentionDecodeArgs. Two calls follow each other directly, so that the second may overlap.
  std::vector<float> Decode(int splits, bool is_settled = false) {
    std::vector<float> q;
    std::vector<int64_t> positions;
    for (const Sequence& sequence : sequences_) {
      const RetentionProblem rows = Slice(sequence.problem, sequence.position, sequence.position + num_rows_);
      q.insert(q.end(), rows.Q.begin(), rows.Q.end());
      positions.push_back(sequence.position);
    }
    const DeviceBuffer queries = OnDevice(Encode(q, dtype())), where = OnDevice(positions);
    const int count = static_cast<int>(sequences_.size());
    const CudaRetentionSlots slots = {addresses_.as<char*>(), where.as<int64_t>(), state_ends_.as<int64_t>(), count,
                                      num_rows_};
    const PoisonedBuffer y(q.size() * ElementBytes(dtype()));
    const PoisonedBuffer workspace(RetentionDecodeWorkspace(layout_, count, num_rows_, splits));
    const CudaRetentionDecodeArgs args = {queries.as<void>(), y.as<void>(), workspace.as<void>(), splits, is_settled};
    for (int call = 0; call < (is_settled ? 3 : 1); ++call) {
      const absl::Status status = CudaRetentionDecode(layout_, slots, args, nullptr);
      EXPECT_TRUE(status.ok()) << status;
    }
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess) << cudaGetErrorString(cudaGetLastError());
    workspace.Download();
    return kernels::Decode(y.Download(), dtype());
  }

  // Of the new rows, by the definition: what the state's own rounding adds is in it.
  std::vector<double> Reference() const {
    std::vector<double> out;
    for (const Sequence& sequence : sequences_) {
      const std::vector<double> y = QuadraticReference(sequence.problem);
      const int64_t width = y.size() / sequence.problem.t;
      out.insert(out.end(), y.begin() + sequence.position * width, y.end());
    }
    return out;
  }
  // Of the new rows, from the state that the slot holds.
  std::vector<double> ReferenceFromState() const {
    std::vector<double> out;
    for (size_t s = 0; s < sequences_.size(); ++s) {
      const RetentionShape& shape = sequences_[s].problem.shape;
      for (int row = 0; row < num_rows_; ++row) {
        for (int head = 0; head < shape.heads_q; ++head) AppendAnswer(s, sequences_[s].position + row, head, out);
      }
    }
    return out;
  }
  std::vector<float> Plain() const {
    std::vector<float> out;
    for (const Sequence& sequence : sequences_) {
      const int64_t lengths[] = {0, sequence.problem.t};
      const std::vector<float> y = PlainImplementation(sequence.problem, lengths, dtype());
      const int64_t width = y.size() / sequence.problem.t;
      out.insert(out.end(), y.begin() + sequence.position * width, y.end());
    }
    return out;
  }

 private:
  // Of degree 4: products of four in lexicographic order.
  static void AddFourth(const DeviceState& state, int h, const float* q, double factor, int d,
                        std::vector<double>& sums, double& denominator) {
    int64_t row = h * RetentionStateRows(d, 4);
    for (int i = 0; i < d; ++i) {
      for (int j = i; j < d; ++j) {
        for (int k = j; k < d; ++k) {
          for (int l = k; l < d; ++l, ++row) {
            const double phi = factor * q[i] * q[j] * q[k] * q[l];
            for (int column = 0; column < d; ++column) sums[column] += phi * state.S[row * d + column];
            denominator += phi * state.z[row];
          }
        }
      }
    }
  }
  void AppendAnswer(size_t s, int64_t t, int head, std::vector<double>& out) const {
    const Sequence& sequence = sequences_[s];
    const RetentionProblem& problem = sequence.problem;
    const int d = problem.shape.head_dim, Hk = problem.shape.heads_kv, h = head / (problem.shape.heads_q / Hk);
    const float* q = problem.Q.data() + (t * problem.shape.heads_q + head) * d;
    std::vector<double> sums(d);
    double denominator = 0, decay = 0;
    for (int64_t j = t; j >= sequence.state_end; --j) {
      double score = 0;
      for (int i = 0; i < d; ++i) score += static_cast<double>(q[i]) * problem.K[(j * Hk + h) * d + i];
      const double weight = std::pow(score, problem.shape.degree) * std::exp(decay);
      for (int i = 0; i < d; ++i) sums[i] += weight * problem.V[(j * Hk + h) * d + i];
      denominator += weight;
      if (!problem.log_G.empty()) decay += problem.log_G[j * Hk + h];
    }
    if (sequence.state_end > 0 && problem.shape.degree == 4) {
      AddFourth(states_[s], h, q, std::exp(decay), d, sums, denominator);
    } else if (sequence.state_end > 0) {
      const int64_t P = RetentionStateRows(d);
      for (int i = 0; i < d; ++i) {
        for (int j = i / 8 * 8; j < d; ++j) {  // (i, j) and (j, i) of a tile may be rounded each to its own scale
          const int64_t at = h * P + RetentionStateRow(i, j, d);
          const double phi = (i / 8 < j / 8 ? 2.0 : 1.0) * q[i] * q[j] * std::exp(decay);
          for (int column = 0; column < d; ++column) sums[column] += phi * states_[s].S[at * d + column];
          denominator += phi * states_[s].z[at];
        }
      }
    }
    for (int i = 0; i < d; ++i) out.push_back(denominator > 0 ? sums[i] / denominator : 0);
  }

  // The state after state_end rows, through the forward pass.
  DeviceState Fold(const Sequence& sequence, DeviceBuffer& slot) {
    RetentionProblem before = Slice(sequence.problem, 0, sequence.state_end);
    before.shape.chunk = 64;
    const int64_t lengths[] = {0, sequence.state_end};
    DeviceState state = RunForward(before, lengths, dtype(), {}, true).final_state;
    const DeviceBuffer S = OnDevice(state.S), z = OnDevice(state.z),
                       address = OnDevice(std::vector<char*>{slot.as<char>()});
    const absl::Status status =
        CudaRetentionImportSlots(layout_, address.as<char*>(), 1, S.as<float>(), z.as<float>(), nullptr);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    state.S = NearestState(layout_, slot);
    return state;
  }

  // Appends every row from state_end to the last new one, sequence by sequence, a few rows at a time.
  void FillTails() {
    for (size_t s = 0; s < sequences_.size(); ++s) {
      const Sequence& sequence = sequences_[s];
      for (int64_t row = sequence.state_end; row < sequence.problem.t;) {
        const int count = static_cast<int>(std::min<int64_t>(7, sequence.problem.t - row));
        const RetentionProblem rows = Slice(sequence.problem, row, row + count);
        const DeviceBuffer K = OnDevice(Encode(rows.K, dtype())), V = OnDevice(Encode(rows.V, dtype()));
        const DeviceBuffer log_G = OnDevice(rows.log_G), where = OnDevice(std::vector<int64_t>{row});
        const CudaRetentionSlots slots = {addresses_.as<char*>() + s, where.as<int64_t>(),
                                          state_ends_.as<int64_t>() + s, 1, count};
        const float* gates = rows.log_G.empty() ? nullptr : log_G.as<float>();
        EXPECT_TRUE(CudaRetentionAppend(layout_, slots, K.as<void>(), V.as<void>(), gates, nullptr).ok());
        EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        row += count;
      }
    }
  }

  RetentionDtype dtype() const { return layout_.shape().dtype; }

  const RetentionSlotLayout& layout_;
  std::vector<Sequence> sequences_;
  int num_rows_;
  std::vector<DeviceBuffer> memory_;
  std::vector<DeviceState> states_;
  DeviceBuffer addresses_, state_ends_;
};

// What a run must come to.
struct Expected {
  explicit Expected(const DecodeRun& run)
      : definition(run.Reference()),
        from_state(run.ReferenceFromState()),
        plain_error(RelativeError(run.Plain(), definition)) {}
  std::vector<double> definition, from_state;
  double plain_error;
};

// y may be off by 1.5 times what a plain implementation of the same type is; in float32 by the goldens' tolerance.
void ExpectClose(DecodeRun& run, const Expected& expected, const CudaRetentionSlotShape& shape, int num_rows,
                 int splits, bool is_settled) {
  const bool is_float = shape.dtype == RetentionDtype::kFloat32;
  const double plain = expected.plain_error;
  const std::vector<float> y = run.Decode(splits, is_settled);
  const double error = RelativeError(y, expected.from_state);
  char name[160];
  std::snprintf(name, sizeof(name), "%s degree %d d %d r %d rows %d state %s splits %d%s",
                RetentionDtypeName(shape.dtype), shape.degree, shape.head_dim, shape.heads_q / shape.heads_kv, num_rows,
                RetentionStateDtypeName(shape.state_dtype), splits, is_settled ? " settled" : "");
  std::printf("  %s: error %.2e, plain %.2e, %s %.2f\n", name, error, plain, is_float ? "times" : "ratio",
              error / plain);
  EXPECT_LE(error, is_float ? 2e-5 : 1.5 * plain) << name;
  // φ(k), V and perhaps S are rounded to bf16 once each on the way into the state; S in int8 costs more.
  const double most = shape.state_dtype == RetentionStateDtype::kInt8 ? 0x1p-5 : 3 * 0x1p-8;
  EXPECT_LE(RelativeError(y, expected.definition), most) << name;
  EXPECT_TRUE(SameBits(y, run.Decode(splits, is_settled))) << name;
}

// Five sequences at positions around tiles, in one call. False if this build has no such kernels.
bool ExpectSequencesClose(std::mt19937& rng, const CudaRetentionSlotShape& shape, int num_rows) {
  const auto layout = RetentionSlotLayout::Make(shape);
  if (!IsBuilt(layout.status(), shape.dtype, shape.head_dim)) return false;
  // Gates that leave few keys would make q·z cancel to a rest below float32's reach.
  DecodeRun run(
      *layout,
      {RandomSequence(rng, shape, 0, 0, num_rows, -0.5f), RandomSequence(rng, shape, 0, 70, num_rows, -0.1f),
       RandomSequence(rng, shape, 64, 64, num_rows, -0.05f), RandomSequence(rng, shape, 320, 400, num_rows, 0.0f),
       RandomSequence(rng, shape, 256, 256 + 147, num_rows, -0.01f)},
      num_rows);
  const Expected expected(run);
  for (const int splits : {1, 2, 5, 40}) {
    if (splits > RetentionStateRows(shape.head_dim) / 64) continue;
    ExpectClose(run, expected, shape, num_rows, splits, splits == 5);
  }
  return true;
}

void ExpectAllShapesClose(RetentionDtype dtype, std::initializer_list<int> groups) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  int num_run = 0;
  for (const int d : {16, 32, 64, 128}) {
    for (const int group : groups) {
      for (const int num_rows : {1, 3}) {
        for (const RetentionStateDtype state_dtype : kStateTypes) {
          num_run += ExpectSequencesClose(rng,
                                          {.heads_q = 2 * group,
                                           .heads_kv = 2,
                                           .head_dim = d,
                                           .tail_rows = 150,
                                           .dtype = dtype,
                                           .state_dtype = state_dtype},
                                          num_rows);
        }
      }
    }
  }
  if (num_run == 0) GTEST_SKIP() << "not built";
}

TEST_F(CudaDecode, Bf16SequencesAtOwnPositions_AgreeWithTheDefinition) { ExpectAllShapesClose(kBf16, {1, 4, 12, 16}); }

TEST_F(CudaDecode, Fp16SequencesAtOwnPositions_AgreeWithTheDefinition) {
  ExpectAllShapesClose(RetentionDtype::kFp16, {1, 12});
}

TEST_F(CudaDecode, Float32SequencesAtOwnPositions_AgreeWithTheDefinition) {
  ExpectAllShapesClose(RetentionDtype::kFloat32, {1, 12});
}

TEST_F(CudaDecode, OfDegreeFour_AnswersFromStateAndTail) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  int num_run = 0;
  for (const RetentionDtype dtype : {RetentionDtype::kBf16, RetentionDtype::kFp16, RetentionDtype::kFloat32}) {
    for (const int d : {16, 32}) {
      for (const int heads_q : {2, 6, 40}) {  // 40: two products of 16 rows
        const CudaRetentionSlotShape shape = {
            .heads_q = heads_q, .heads_kv = 2, .head_dim = d, .degree = 4, .tail_rows = 150, .dtype = dtype};
        const auto layout = RetentionSlotLayout::Make(shape);
        if (!IsBuilt(layout.status(), dtype, d)) continue;
        ++num_run;
        DecodeRun run(*layout,
                      {RandomSequence(rng, shape, 0, 70, 2, -0.01f), RandomSequence(rng, shape, 64, 64, 2, -0.01f),
                       RandomSequence(rng, shape, 128, 128 + 100, 2, 0.0f)},
                      2);
        const Expected expected(run);
        for (const int splits : {1, 7}) ExpectClose(run, expected, shape, 2, splits, splits == 7);
      }
    }
  }
  if (num_run == 0) GTEST_SKIP() << "not built";
}

TEST_F(CudaDecode, OfDegreeFour_AnswersFromTheTail) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const RetentionDtype dtype : {RetentionDtype::kBf16, RetentionDtype::kFp16, RetentionDtype::kFloat32}) {
    for (const int d : {16, 32, 64, 128}) {
      const CudaRetentionSlotShape shape = {
          .heads_q = 6, .heads_kv = 2, .head_dim = d, .degree = 4, .tail_rows = 500, .dtype = dtype};
      const auto layout = RetentionSlotLayout::Make(shape);
      if (!IsBuilt(layout.status(), dtype, d)) continue;
      DecodeRun run(*layout,
                    {RandomSequence(rng, shape, 0, 0, 2, 0.0f), RandomSequence(rng, shape, 0, 300, 2, -0.01f),
                     RandomSequence(rng, shape, 0, 498, 2, -0.05f)},
                    2);
      ExpectClose(run, Expected(run), shape, 2, RetentionSlotHasState(shape) ? 1 : 0, false);
    }
  }
}

}  // namespace
}  // namespace statehouse::kernels
