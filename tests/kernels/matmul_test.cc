#include "kernels/matmul/matmul.h"

#include <bit>
#include <limits>
#include <utility>

#include "tests/kernels/kernel_test_support.h"

namespace statehouse::kernels {
namespace {

constexpr WeightType kTypes[] = {WeightType::kF32, WeightType::kBF16, WeightType::kInt8};

PackedMatrix PackFloats(const std::vector<float>& values, int64_t rows, int64_t cols, WeightType type,
                        ThreadPool& pool) {
  absl::StatusOr<PackedMatrix> packed = PackedMatrix::Pack({values.data(), SourceType::kF32, rows, cols}, type, pool);
  EXPECT_TRUE(packed.ok()) << packed.status();
  return *std::move(packed);
}

// The bound of a chain of K fused multiply-adds on float32, and the two roundings of bias and sum.
std::vector<double> Tolerances(const MatMulArgs& args) {
  const int64_t N = args.weights->rows();
  const int64_t K = args.weights->cols();
  std::vector<float> weights(K);
  std::vector<double> out(args.num_rows * N);
  for (int64_t n = 0; n < N; ++n) {
    args.weights->UnpackRow(n, weights.data());
    for (int64_t row = 0; row < args.num_rows; ++row) {
      double magnitude = 1e-30;
      for (int64_t k = 0; k < K; ++k) magnitude += std::fabs(static_cast<double>(args.x[row * K + k]) * weights[k]);
      if (args.bias != nullptr) magnitude += std::fabs(args.bias[n]);
      if (args.output == MatMulOutput::kAdd) magnitude += std::fabs(args.y[row * N + n]);
      out[row * N + n] = magnitude * static_cast<double>(K + 3) * 0.5 * std::numeric_limits<float>::epsilon();
    }
  }
  return out;
}

struct Shape {
  int64_t rows, N, K;
};

void ExpectNearReference(const Shape& shape, WeightType type, bool with_bias, MatMulOutput output, std::mt19937& rng,
                         ThreadPool& pool) {
  SCOPED_TRACE(::testing::Message() << shape.rows << " rows, N " << shape.N << ", K " << shape.K << ", "
                                    << WeightTypeName(type) << (with_bias ? ", bias" : "")
                                    << (output == MatMulOutput::kAdd ? ", add" : ""));
  const std::vector<float> w = Normals(rng, shape.N * shape.K);
  const std::vector<float> x = Normals(rng, shape.rows * shape.K);
  const std::vector<float> bias = Normals(rng, shape.N);
  std::vector<float> y = Normals(rng, shape.rows * shape.N);
  std::vector<float> want = y;
  const PackedMatrix packed = PackFloats(w, shape.N, shape.K, type, pool);
  MatMulArgs args{.weights = &packed,
                  .x = x.data(),
                  .y = y.data(),
                  .bias = with_bias ? bias.data() : nullptr,
                  .num_rows = shape.rows,
                  .output = output};
  const std::vector<double> tolerance = Tolerances(args);
  MatMul(args, pool);
  args.y = want.data();
  MatMulRef(args);
  EXPECT_TRUE(Near(y, want, [&](size_t i) { return tolerance[i]; }));
}

TEST(MatMul, OddRaggedAndTinyShapes_AgreeWithTheReference) {
  std::mt19937 rng = SeededRng(11);
  ThreadPool pool(3);
  ForEachTarget([&](int64_t) {
    for (const Shape& shape : {Shape{1, 1, 1},
                               {1, 33, 65},
                               {2, 31, 7},
                               {3, 32, 64},
                               {5, 97, 129},
                               {7, 16, 300},
                               {12, 64, 128},
                               {13, 65, 127},
                               {16, 40, 191},
                               {25, 100, 64},
                               {48, 33, 257},
                               {193, 70, 130},
                               {400, 35, 40}}) {
      for (const WeightType type : kTypes) {
        ExpectNearReference(shape, type, /*with_bias=*/true, MatMulOutput::kStore, rng, pool);
        ExpectNearReference(shape, type, /*with_bias=*/false, MatMulOutput::kAdd, rng, pool);
      }
    }
  });
}

TEST(MatMul, RowsBeforeAndBehindTheOutput_AreNotTouched) {
  std::mt19937 rng = SeededRng(12);
  ThreadPool pool(2);
  const int64_t N = 45, K = 20, rows = 3;
  const PackedMatrix packed = PackFloats(Normals(rng, N * K), N, K, WeightType::kF32, pool);
  const std::vector<float> x = Normals(rng, rows * K);
  std::vector<float> y(rows * N + 64, 7.0f);
  MatMul({.weights = &packed, .x = x.data(), .y = y.data() + 32, .num_rows = rows}, pool);
  for (int i = 0; i < 32; ++i) {
    EXPECT_EQ(y[i], 7.0f);
    EXPECT_EQ(y[32 + rows * N + i], 7.0f);
  }
}

// Rows computed together must have the bits they have alone, on every instruction set and with any number of threads.
TEST(MatMul, Bits_DependOnNeitherRowCountNorThreadsNorInstructionSet) {
  std::mt19937 rng = SeededRng(13);
  constexpr int64_t kMaxRows = 40;
  const int64_t N = 75, K = 331;
  const std::vector<float> w = Normals(rng, N * K);
  const std::vector<float> x = Normals(rng, kMaxRows * K);
  const std::vector<float> bias = Normals(rng, N);
  for (const WeightType type : kTypes) {
    SCOPED_TRACE(WeightTypeName(type));
    std::vector<float> first;  // every row alone, on the first target with one thread
    ForEachTarget([&](int64_t) {
      for (int threads = 1; threads <= 4; ++threads) {
        ThreadPool pool(threads);
        const PackedMatrix packed = PackFloats(w, N, K, type, pool);
        if (first.empty()) {
          first.resize(kMaxRows * N);
          for (int64_t row = 0; row < kMaxRows; ++row) {
            MatMul({.weights = &packed,
                    .x = x.data() + row * K,
                    .y = first.data() + row * N,
                    .bias = bias.data(),
                    .num_rows = 1},
                   pool);
          }
        }
        for (int64_t rows = 1; rows <= kMaxRows; ++rows) {
          std::vector<float> y(rows * N);
          MatMul({.weights = &packed, .x = x.data(), .y = y.data(), .bias = bias.data(), .num_rows = rows}, pool);
          ASSERT_TRUE(SameBits(y, std::vector<float>(first.begin(), first.begin() + rows * N)))
              << rows << " rows, " << threads;
        }
      }
    });
  }
}

TEST(MatMul, ManyRows_HaveTheBitsOfFew) {
  std::mt19937 rng = SeededRng(14);
  const int64_t N = 200, K = 300, rows = 450;
  ThreadPool pool(2);
  const std::vector<float> x = Normals(rng, rows * K);
  for (const WeightType type : kTypes) {
    const PackedMatrix packed = PackFloats(Normals(rng, N * K), N, K, type, pool);
    std::vector<float> together(rows * N);
    std::vector<float> alone(rows * N);
    MatMul({.weights = &packed, .x = x.data(), .y = together.data(), .num_rows = rows}, pool);
    for (int64_t row = 0; row < rows; row += 1 + row % 5) {
      const int64_t count = std::min<int64_t>(1 + row % 5, rows - row);
      MatMul({.weights = &packed, .x = x.data() + row * K, .y = alone.data() + row * N, .num_rows = count}, pool);
    }
    EXPECT_TRUE(SameBits(together, alone)) << WeightTypeName(type);
  }
}

TEST(PackedMatrix, UnpackRow_GivesBackWhatTheTypeCanHold) {
  std::mt19937 rng = SeededRng(15);
  ThreadPool pool(2);
  const int64_t N = 67, K = 150;
  const std::vector<float> w = Normals(rng, N * K);
  std::vector<float> row(K);
  const PackedMatrix f32 = PackFloats(w, N, K, WeightType::kF32, pool);
  const PackedMatrix bf16 = PackFloats(w, N, K, WeightType::kBF16, pool);
  const PackedMatrix int8 = PackFloats(w, N, K, WeightType::kInt8, pool);
  for (int64_t n = 0; n < N; ++n) {
    const float* want = w.data() + n * K;
    f32.UnpackRow(n, row.data());
    for (int64_t k = 0; k < K; ++k) ASSERT_EQ(row[k], want[k]);
    bf16.UnpackRow(n, row.data());
    for (int64_t k = 0; k < K; ++k) {
      ASSERT_EQ(std::bit_cast<uint32_t>(row[k]) & 0xffff, 0u);
      ASSERT_LE(std::fabs(row[k] - want[k]), std::fabs(want[k]) * 0x1p-8f);
    }
    int8.UnpackRow(n, row.data());
    for (int64_t k = 0; k < K; ++k) {
      float largest = 0;
      for (int64_t i = k / 64 * 64; i < std::min(K, k / 64 * 64 + 64); ++i)
        largest = std::max(largest, std::fabs(want[i]));
      ASSERT_LE(std::fabs(row[k] - want[k]), largest / 127 * 0.5001f);
    }
  }
}

TEST(PackedMatrix, HalfAndBFloatSources_AreReadExactly) {
  ThreadPool pool(1);
  // 1, -2, the smallest subnormal half, the largest half
  const std::vector<uint16_t> half = {0x3c00, 0xc000, 0x0001, 0x7bff};
  const std::vector<uint16_t> bfloat = {0x3f80, 0xc000, 0x0080, 0x7f7f};
  std::vector<float> row(4);
  absl::StatusOr<PackedMatrix> packed =
      PackedMatrix::Pack({half.data(), SourceType::kF16, 1, 4}, WeightType::kF32, pool);
  ASSERT_TRUE(packed.ok());
  packed->UnpackRow(0, row.data());
  EXPECT_EQ(row, (std::vector<float>{1, -2, 0x1p-24f, 65504}));
  packed = PackedMatrix::Pack({bfloat.data(), SourceType::kBF16, 1, 4}, WeightType::kBF16, pool);
  ASSERT_TRUE(packed.ok());
  packed->UnpackRow(0, row.data());
  EXPECT_EQ(row, (std::vector<float>{1, -2, 0x1p-126f, 0x1.fep127f}));
}

TEST(PackedMatrix, BFloatRounding_IsToNearestEven) {
  ThreadPool pool(1);
  const std::vector<float> values = {0x1.01p0f, 0x1.03p0f, 0x1.010002p0f, 0x1.00fffep0f};
  const PackedMatrix packed = PackFloats(values, 1, 4, WeightType::kBF16, pool);
  std::vector<float> row(4);
  packed.UnpackRow(0, row.data());
  EXPECT_EQ(row, (std::vector<float>{0x1p0f, 0x1.04p0f, 0x1.02p0f, 0x1p0f}));
}

TEST(PackedMatrix, UnalignedSource_IsRead) {
  std::mt19937 rng = SeededRng(16);
  ThreadPool pool(2);
  const std::vector<float> w = Normals(rng, 6);
  std::vector<char> bytes(6 * 4 + 1);
  std::memcpy(bytes.data() + 1, w.data(), 24);
  absl::StatusOr<PackedMatrix> packed =
      PackedMatrix::Pack({bytes.data() + 1, SourceType::kF32, 2, 3}, WeightType::kF32, pool);
  ASSERT_TRUE(packed.ok());
  std::vector<float> row(3);
  packed->UnpackRow(1, row.data());
  EXPECT_EQ(row, std::vector<float>(w.begin() + 3, w.end()));
}

TEST(PackedMatrix, BlockOfZeros_StaysZero) {
  std::mt19937 rng = SeededRng(17);
  ThreadPool pool(1);
  std::vector<float> w = Normals(rng, 192);
  std::fill(w.begin() + 64, w.begin() + 128, 0.0f);
  const PackedMatrix packed = PackFloats(w, 1, 192, WeightType::kInt8, pool);
  std::vector<float> row(192);
  packed.UnpackRow(0, row.data());
  for (int k = 64; k < 128; ++k) EXPECT_EQ(row[k], 0.0f);
}

TEST(PackedMatrix, NaNInfinityAndOverflow_AreRefusedByRow) {
  ThreadPool pool(2);
  for (const WeightType type : kTypes) {
    for (const float bad :
         {std::nanf(""), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
      std::vector<float> w(50 * 3, 1.0f);
      w[41 * 3 + 2] = bad;
      w[45 * 3] = bad;
      const absl::Status status = PackedMatrix::Pack({w.data(), SourceType::kF32, 50, 3}, type, pool).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_NE(status.message().find("row 41 "), std::string::npos) << status;
    }
  }
  const std::vector<float> huge = {3.4e38f};
  EXPECT_FALSE(PackedMatrix::Pack({huge.data(), SourceType::kF32, 1, 1}, WeightType::kBF16, pool).ok());
  EXPECT_TRUE(PackedMatrix::Pack({huge.data(), SourceType::kF32, 1, 1}, WeightType::kF32, pool).ok());
}

TEST(PackedMatrix, EmptySizes_AreRefused) {
  ThreadPool pool(1);
  const float one = 1;
  EXPECT_EQ(PackedMatrix::Pack({&one, SourceType::kF32, 0, 1}, WeightType::kF32, pool).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PackedMatrix::Pack({&one, SourceType::kF32, 1, -1}, WeightType::kF32, pool).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace statehouse::kernels
