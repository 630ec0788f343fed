// Folding the tails of slots, copying and clearing slots on the GPU. Skips where there is no GPU.
#include "kernels/power_retention/cuda/decode_slots.h"
#include "kernels/power_retention/cuda/decode_states.h"
#include "kernels/power_retention/cuda/tail_fold.h"
#include "tests/kernels/cuda_retention_fixture.h"
#include "tests/support/gpu.h"

namespace statehouse::kernels {
namespace {

class CudaSlotOps : public ::testing::Test {
 protected:
  void SetUp() override { testing::HasGpu(); }
};

// One slot whose ring is full of random rows, and S and z in double beside it.
class FoldedSlot {
 public:
  FoldedSlot(const RetentionSlotLayout& layout, std::mt19937& rng, float lowest_gate)
      : layout_(layout), shape_(layout.shape()) {
    const int64_t rows = shape_.heads_kv * shape_.tail_rows;
    K_ = Normals(rng, rows * shape_.head_dim), V_ = Normals(rng, rows * shape_.head_dim);
    Round(K_, shape_.dtype), Round(V_, shape_.dtype);
    log_G_ = lowest_gate < 0 ? Uniforms(rng, rows, lowest_gate, 0) : std::vector<float>(rows);
    EXPECT_TRUE(memory_.Allocate(layout_.bytes()).ok());
    EXPECT_EQ(cudaMemset(memory_.as<char>(), 0, layout_.bytes()), cudaSuccess);
    const std::vector<char> K = Encode(K_, shape_.dtype), V = Encode(V_, shape_.dtype);
    EXPECT_TRUE(memory_.Upload(K.data(), K.size(), layout_.keys()).ok());
    EXPECT_TRUE(memory_.Upload(V.data(), V.size(), layout_.values()).ok());
    EXPECT_TRUE(memory_.Upload(log_G_.data(), log_G_.size() * 4, layout_.gates()).ok());
    address_ = OnDevice(std::vector<char*>{memory_.as<char>()});
    P_ = RetentionStateRows(shape_.head_dim);
    S_.resize(shape_.heads_kv * P_ * shape_.head_dim), z_.resize(shape_.heads_kv * P_);
  }

  // Folds [state_end, state_end + rows) on the device only.
  void FoldOnDevice(int64_t state_end, int64_t rows, uint64_t seed = 1) {
    const DeviceBuffer end = OnDevice(std::vector<int64_t>{state_end});
    const absl::Status status =
        CudaRetentionFoldTail(layout_, {address_.as<char*>(), end.as<int64_t>(), 1, rows, seed}, nullptr);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }
  // What one head's fold leaves of the state before it.
  double Decay(int h, int64_t state_end, int64_t rows) const {
    double total = 0;
    for (int64_t t = state_end; t < state_end + rows; ++t) total += log_G_[RingRow(h, t)];
    return std::exp(total);
  }
  // The same in double.
  void FoldReference(int64_t state_end, int64_t rows) {
    const int d = shape_.head_dim;
    for (int h = 0; h < shape_.heads_kv; ++h) {
      const double decay = Decay(h, state_end, rows);
      for (int64_t row = h * P_; row < (h + 1) * P_; ++row) {
        z_[row] *= decay;
        for (int c = 0; c < d; ++c) S_[row * d + c] *= decay;
      }
      double after = 0;
      for (int64_t t = state_end + rows - 1; t >= state_end; --t) {
        const int64_t ring = RingRow(h, t);
        const float *k = K_.data() + ring * d, *v = V_.data() + ring * d;
        for (int i = 0; i < d; ++i) {
          for (int j = i / 8 * 8; j < d; ++j) {
            const int64_t row = h * P_ + RetentionStateRow(i, j, d);
            const double phi = std::exp(after) * k[i] * k[j];
            z_[row] += phi;
            for (int c = 0; c < d; ++c) S_[row * d + c] += phi * v[c];
          }
        }
        after += log_G_[ring];
      }
    }
  }

  std::vector<float> DeviceS() const { return NearestState(layout_, memory_); }
  // All that a slot keeps of S and z.
  std::vector<char> StateBytes() const { return SlotBytes(memory_, 0, layout_.keys()); }
  DeviceBuffer& memory() { return memory_; }
  std::vector<float> DeviceZ() const {
    std::vector<float> z(z_.size());
    EXPECT_TRUE(memory_.Download(z.data(), z.size() * 4, layout_.normalizer()).ok());
    return z;
  }
  std::vector<double>& S() { return S_; }
  std::vector<double>& z() { return z_; }
  char* const* address() const { return address_.as<char*>(); }

 private:
  int64_t RingRow(int h, int64_t t) const { return h * shape_.tail_rows + t % shape_.tail_rows; }

  const RetentionSlotLayout& layout_;
  CudaRetentionSlotShape shape_;
  std::vector<float> K_, V_, log_G_;
  DeviceBuffer memory_, address_;
  int64_t P_ = 0;
  std::vector<double> S_, z_;
};

// Of what decoding reads: a state in int8 has steps of 1/127 of the largest of 8 rows.
double MostFoldError(RetentionStateDtype state_dtype, bool is_tf32) {
  if (state_dtype == RetentionStateDtype::kInt8) return 0x1p-6;
  return state_dtype == RetentionStateDtype::kBf16 ? 0x1p-7 : is_tf32 ? 0x1p-11 : 2e-6;
}

TEST_F(CudaSlotOps, ChunksFoldedInPlace_AgreeWithTheDefinition) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const RetentionDtype dtype : {RetentionDtype::kBf16, RetentionDtype::kFp16, RetentionDtype::kFloat32}) {
    for (const int d : {16, 32, 64, 128}) {
      for (const RetentionStateDtype state_dtype : kStateTypes) {
        for (const int64_t rows : {1, 64, 90}) {
          if (rows == 1 && d == 128) continue;  // the reference takes long
          const auto layout = RetentionSlotLayout::Make({.heads_q = 2,
                                                         .heads_kv = 2,
                                                         .head_dim = d,
                                                         .tail_rows = 200,
                                                         .dtype = dtype,
                                                         .state_dtype = state_dtype});
          if (!IsBuilt(layout.status(), dtype, d)) continue;
          FoldedSlot slot(*layout, rng, rows == 64 ? -3.0f : -0.02f);
          for (int chunk = 0; chunk < 3; ++chunk) {  // the third wraps around the ring's end
            slot.FoldOnDevice(chunk * rows + 100, rows);
            slot.FoldReference(chunk * rows + 100, rows);
          }
          const double error = RelativeError(slot.DeviceS(), slot.S()),
                       z_error = RelativeError(slot.DeviceZ(), slot.z());
          std::printf("  %s d %d rows %d state %s: S %.2e, z %.2e\n", RetentionDtypeName(dtype), d,
                      static_cast<int>(rows), RetentionStateDtypeName(state_dtype), error, z_error);
          const bool is_tf32 = dtype != RetentionDtype::kFloat32 && d >= 64;
          EXPECT_LE(error, MostFoldError(state_dtype, is_tf32));
          EXPECT_LE(z_error, 2e-6);
        }
      }
    }
  }
}

// A slot of degree 4 from chunk to chunk: the state of the forward pass over the same rows.
TEST_F(CudaSlotOps, ChunksOfDegreeFour_LeaveTheForwardPassesState) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  int num_run = 0;
  for (const RetentionDtype dtype : {RetentionDtype::kBf16, RetentionDtype::kFp16, RetentionDtype::kFloat32}) {
    for (const int d : {16, 32}) {
      const auto layout = RetentionSlotLayout::Make(
          {.heads_q = 2, .heads_kv = 2, .head_dim = d, .degree = 4, .tail_rows = 200, .dtype = dtype});
      if (!IsBuilt(layout.status(), dtype, d)) continue;
      ++num_run;
      const RetentionShape shape = {.heads_q = 2, .heads_kv = 2, .head_dim = d, .degree = 4, .chunk = 90};
      RetentionProblem problem = RandomProblem(rng, shape, 180, -0.05f);
      Round(problem.K, dtype), Round(problem.V, dtype), Round(problem.Q, dtype);
      const DeviceBuffer slot = OnDevice(std::vector<char>(layout->bytes(), 0));
      const DeviceBuffer address = OnDevice(std::vector<char*>{slot.as<char>()});
      for (int64_t end = 0; end < 180; end += 90) {
        for (int64_t row = end; row < end + 90; row += 15) {
          const RetentionProblem rows = Slice(problem, row, row + 15);
          const DeviceBuffer K = OnDevice(Encode(rows.K, dtype)), V = OnDevice(Encode(rows.V, dtype));
          const DeviceBuffer log_G = OnDevice(rows.log_G), where = OnDevice(std::vector<int64_t>{row});
          const DeviceBuffer ends = OnDevice(std::vector<int64_t>{end});
          ASSERT_TRUE(CudaRetentionAppend(*layout,
                                          {address.as<char*>(), where.as<int64_t>(), ends.as<int64_t>(), 1, 15},
                                          K.as<void>(), V.as<void>(), log_G.as<float>(), nullptr)
                          .ok());
          ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        }
        const DeviceBuffer ends = OnDevice(std::vector<int64_t>{end});
        const absl::Status status =
            CudaRetentionFoldTail(*layout, {address.as<char*>(), ends.as<int64_t>(), 1, 90, 1}, nullptr);
        ASSERT_TRUE(status.ok()) << status;
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      }
      const int64_t lengths[] = {0, 180}, rows = 2 * RetentionStateRows(d, 4);
      const DeviceState want = RunForward(problem, lengths, dtype, {}, true).final_state;
      const std::vector<float> S = Floats(SlotBytes(slot, layout->state(), rows * d * 4));
      const std::vector<float> z = Floats(SlotBytes(slot, layout->normalizer(), rows * 4));
      EXPECT_LE(RelativeError(S, std::vector<double>(want.S.begin(), want.S.end())), 2e-6) << d;
      EXPECT_LE(RelativeError(z, std::vector<double>(want.z.begin(), want.z.end())), 2e-6) << d;
    }
  }
  if (num_run == 0) GTEST_SKIP() << "not built";
}

// A bf16 state that is rounded to nearest stops growing: 97 % off after a million tokens. What it leaves is kept
// in 8 bits beside it, so it stays as right as float32 rounded once.
TEST_F(CudaSlotOps, StateOverAMillionTokens_IsHardlyWorseThanOverFourThousand) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  constexpr int64_t kChunk = 128, kFolds = (int64_t{1} << 20) / kChunk;
  for (const RetentionStateDtype state_dtype : kStateTypes) {
    const auto layout = RetentionSlotLayout::Make(
        {.heads_q = 1, .heads_kv = 1, .head_dim = 64, .tail_rows = 2 * kChunk, .state_dtype = state_dtype});
    ASSERT_TRUE(layout.ok()) << layout.status();
    FoldedSlot slot(*layout, rng, -1e-5f);
    // The ring holds two chunks that are folded in turn, so what each adds in double tells all.
    std::vector<double> added[2];
    for (int chunk = 0; chunk < 2; ++chunk) {
      std::fill(slot.S().begin(), slot.S().end(), 0.0);
      slot.FoldReference(chunk * kChunk, kChunk);
      added[chunk] = slot.S();
    }
    std::vector<double> S(added[0].size());
    double early_error = 0, error = 0, mean = 0;
    for (int64_t fold = 0; fold < kFolds; ++fold) {
      slot.FoldOnDevice(fold * kChunk, kChunk, 7);
      const double decay = slot.Decay(0, fold * kChunk, kChunk);
      for (size_t i = 0; i < S.size(); ++i) S[i] = decay * S[i] + added[fold % 2][i];
      if (fold + 1 != 32 && fold + 1 != kFolds) continue;
      const std::vector<float> got = slot.DeviceS();
      double dot = 0, square = 0;
      for (size_t i = 0; i < S.size(); ++i) dot += got[i] * S[i], square += S[i] * S[i];
      early_error = error, error = RelativeError(got, S), mean = dot / square - 1;
      std::printf("  state %s after %lld tokens: error %.2e, in the mean %.1e\n", RetentionStateDtypeName(state_dtype),
                  static_cast<long long>((fold + 1) * kChunk), error, mean);
    }
    EXPECT_LE(error, 2 * early_error);
    EXPECT_LE(error, state_dtype == RetentionStateDtype::kFloat32 ? 1e-3
                     : state_dtype == RetentionStateDtype::kBf16  ? 4e-3
                                                                  : 0x1p-6);
    EXPECT_LE(std::abs(mean), 1e-4);
  }
}

TEST_F(CudaSlotOps, SameFoldInAnotherSlot_SameBits) {
  for (const RetentionStateDtype state_dtype : {RetentionStateDtype::kBf16, RetentionStateDtype::kInt8}) {
    const auto layout = RetentionSlotLayout::Make(
        {.heads_q = 2, .heads_kv = 2, .head_dim = 64, .tail_rows = 256, .state_dtype = state_dtype});
    ASSERT_TRUE(layout.ok()) << layout.status();
    std::mt19937 rng = SeededRng(11), same = SeededRng(11);
    FoldedSlot a(*layout, rng, -0.01f), b(*layout, same, -0.01f);
    for (int chunk = 0; chunk < 4; ++chunk) a.FoldOnDevice(chunk * 128, 128, 3), b.FoldOnDevice(chunk * 128, 128, 3);
    EXPECT_EQ(a.StateBytes(), b.StateBytes());
    b.FoldOnDevice(4 * 128, 128, 3), a.FoldOnDevice(4 * 128, 128, 4);
    EXPECT_NE(a.StateBytes(), b.StateBytes()) << "the seed changes nothing";
  }
}

// With all that the slot keeps, so that the next fold cannot tell.
TEST_F(CudaSlotOps, ExportedAndImported_SameBits) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const int d : {16, 64, 128}) {
    for (const RetentionStateDtype state_dtype : kStateTypes) {
      const auto layout = RetentionSlotLayout::Make(
          {.heads_q = 2, .heads_kv = 2, .head_dim = d, .tail_rows = 256, .state_dtype = state_dtype});
      if (!IsBuilt(layout.status(), RetentionDtype::kBf16, d)) continue;
      FoldedSlot slot(*layout, rng, -0.01f), copy(*layout, rng, -0.01f);
      for (int chunk = 0; chunk < 6; ++chunk) slot.FoldOnDevice(chunk * 128, 128, 5);
      const int64_t rows = 2 * RetentionStateRows(d);
      const PoisonedBuffer S(rows * d * 4), z(rows * 4);
      ASSERT_TRUE(CudaRetentionExportSlots(*layout, slot.address(), 1, S.as<float>(), z.as<float>(), nullptr).ok());
      ASSERT_TRUE(CudaRetentionImportSlots(*layout, copy.address(), 1, S.as<float>(), z.as<float>(), nullptr).ok());
      ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      EXPECT_EQ(copy.StateBytes(), slot.StateBytes()) << "d " << d << " state " << RetentionStateDtypeName(state_dtype);
      // What is exported is nearer to the state than what decoding reads.
      const std::vector<float> exported = Floats(S.Download()), nearest = slot.DeviceS();
      const std::vector<double> all(exported.begin(), exported.end());
      EXPECT_LE(RelativeError(nearest, all), 0x1p-6);
      if (state_dtype != RetentionStateDtype::kFloat32) {
        EXPECT_GT(RelativeError(nearest, all), 0x1p-12) << "nothing is kept beside the nearest";
      }
    }
  }
}

// Bytes of a slot that a fork copies, by the layout's own offsets.
std::vector<bool> HeldBytes(const RetentionSlotLayout& layout, int64_t state_end, int64_t position) {
  std::vector<bool> held(layout.bytes(), false);
  const CudaRetentionSlotShape& shape = layout.shape();
  const size_t row = shape.head_dim * ElementBytes(shape.dtype);
  const int64_t P = RetentionStateRows(shape.head_dim);
  const auto mark = [&](size_t at, size_t bytes) { std::fill_n(held.begin() + at, bytes, true); };
  if (state_end > 0) {
    const int64_t size = shape.heads_kv * P * shape.head_dim;
    const bool is_float = shape.state_dtype == RetentionStateDtype::kFloat32,
               is_bytes = shape.state_dtype == RetentionStateDtype::kInt8;
    mark(layout.state(), size * (is_float ? 4 : is_bytes ? 1 : 2));
    mark(layout.normalizer(), shape.heads_kv * P * 4);
    if (!is_float) mark(layout.rests(), size);
    if (is_bytes) mark(layout.scales(), shape.heads_kv * P / 4);
  }
  for (int h = 0; h < shape.heads_kv; ++h) {
    for (int64_t t = state_end; t < position; ++t) {
      const int64_t ring = h * shape.tail_rows + t % shape.tail_rows;
      mark(layout.keys() + ring * row, row), mark(layout.values() + ring * row, row),
          mark(layout.gates() + ring * 4, 4);
    }
  }
  return held;
}

TEST_F(CudaSlotOps, ForkedSlots_HoldWhatTheirSourcesHold) {
  std::mt19937 rng = SeededRng(std::random_device{}());
  for (const RetentionStateDtype state_dtype : kStateTypes) {
    const auto layout = RetentionSlotLayout::Make(
        {.heads_q = 3, .heads_kv = 3, .head_dim = 64, .tail_rows = 150, .state_dtype = state_dtype});
    ASSERT_TRUE(layout.ok()) << layout.status();
    const std::vector<int64_t> state_ends = {0, 128, 256}, positions = {70, 140, 256 + 150};
    std::vector<DeviceBuffer> from, to;
    std::vector<const char*> from_addresses;
    std::vector<char*> to_addresses;
    std::vector<std::vector<char>> sources;
    for (size_t pair = 0; pair < positions.size(); ++pair) {
      std::vector<char> bytes(layout->bytes());
      for (char& byte : bytes) byte = static_cast<char>(rng());
      from.push_back(OnDevice(bytes));
      from_addresses.push_back(from.back().as<char>());
      to.push_back(OnDevice(std::vector<char>(layout->bytes(), 0x55)));
      to_addresses.push_back(to.back().as<char>());
      sources.push_back(std::move(bytes));
    }
    const DeviceBuffer sources_on_device = OnDevice(from_addresses), targets = OnDevice(to_addresses);
    const DeviceBuffer where = OnDevice(positions), ends = OnDevice(state_ends);
    const absl::Status status = CudaRetentionForkSlots(
        *layout, {sources_on_device.as<const char*>(), targets.as<char*>(), where.as<int64_t>(), ends.as<int64_t>(), 3},
        nullptr);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    for (size_t pair = 0; pair < positions.size(); ++pair) {
      std::vector<char> got(layout->bytes());
      ASSERT_TRUE(to[pair].Download(got.data(), got.size()).ok());
      const std::vector<bool> held = HeldBytes(*layout, state_ends[pair], positions[pair]);
      for (size_t i = 0; i < got.size(); ++i) {
        if (held[i]) {
          ASSERT_EQ(got[i], sources[pair][i]) << "pair " << pair << " byte " << i;
        }
      }
      const size_t copied = std::count_if(got.begin(), got.end(), [](char byte) { return byte != 0x55; });
      if (state_ends[pair] == 0) {
        EXPECT_LT(copied, layout->bytes() / 4) << "a state that covers nothing was copied";
      }
    }
  }
}

TEST_F(CudaSlotOps, ClearedInSlices_NothingElseIsTouched) {
  const auto layout = RetentionSlotLayout::Make({.heads_q = 2, .heads_kv = 2, .head_dim = 64, .tail_rows = 100});
  ASSERT_TRUE(layout.ok()) << layout.status();
  const DeviceBuffer a = OnDevice(std::vector<char>(layout->bytes(), 0x77)),
                     b = OnDevice(std::vector<char>(layout->bytes(), 0x77));
  const DeviceBuffer addresses = OnDevice(std::vector<char*>{a.as<char>(), b.as<char>()});
  ASSERT_TRUE(CudaRetentionZeroSlots(*layout, addresses.as<char*>(), 2, 16, 4096, nullptr).ok());
  ASSERT_TRUE(CudaRetentionZeroSlots(*layout, addresses.as<char*>(), 1, 4096, layout->bytes(), nullptr).ok());
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  std::vector<char> got(layout->bytes());
  ASSERT_TRUE(a.Download(got.data(), got.size()).ok());
  EXPECT_EQ(std::count(got.begin(), got.end(), 0x77), 16);
  ASSERT_TRUE(b.Download(got.data(), got.size()).ok());
  EXPECT_EQ(std::count(got.begin(), got.end(), 0), 4096 - 16);
  EXPECT_EQ(CudaRetentionZeroSlots(*layout, addresses.as<char*>(), 2, 0, layout->bytes() + 16, nullptr).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace statehouse::kernels
