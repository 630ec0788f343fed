#include "kernels/norm/norm.h"

#include "tests/kernels/kernel_test_support.h"

namespace statehouse::kernels {
namespace {

struct Case {
  std::vector<float> x, weight, bias;
  int64_t rows, size;
};

Case MakeCase(std::mt19937& rng, int64_t rows, int64_t size, float offset) {
  Case c{Normals(rng, rows * size), Normals(rng, size), Normals(rng, size), rows, size};
  for (float& x : c.x) x += offset;
  return c;
}

NormArgs Args(const Case& c, std::vector<float>& y, bool with_bias) {
  return {.x = c.x.data(),
          .y = y.data(),
          .weight = c.weight.data(),
          .bias = with_bias ? c.bias.data() : nullptr,
          .num_rows = c.rows,
          .size = c.size,
          .epsilon = 1e-5f};
}

// Sums run in 64 lanes: size / 64 additions each and 6 levels; then a few roundings per element, relative to the terms.
auto Tolerance(const Case& c, float offset) {
  const double units = (static_cast<double>(c.size) / 64 + 20) * (1 + std::fabs(offset)) * 1.2e-7;
  return [&c, units](size_t i) {
    return units * (5 * std::fabs(c.weight[i % c.size]) + std::fabs(c.bias[i % c.size])) + 1e-30;
  };
}

TEST(Norm, OddAndTinySizes_AgreeWithTheReference) {
  std::mt19937 rng = SeededRng(21);
  ThreadPool pool(3);
  ForEachTarget([&](int64_t) {
    for (const int64_t size : {1, 2, 15, 16, 17, 63, 64, 65, 100, 128, 3072, 5001}) {
      for (const int64_t rows : {1, 3, 20}) {
        const Case c = MakeCase(rng, rows, size, 0.5f);
        std::vector<float> y(rows * size), want(rows * size);
        SCOPED_TRACE(::testing::Message() << rows << " x " << size);
        LayerNorm(Args(c, y, true), pool);
        LayerNormRef(Args(c, want, true));
        // A row of one or two elements divides rounding errors of the mean by a tiny deviation: those are checked
        // below.
        if (size > 2) {
          EXPECT_TRUE(Near(y, want, Tolerance(c, 0.5f)));
        }
        RmsNorm(Args(c, y, false), pool);
        RmsNormRef(Args(c, want, false));
        EXPECT_TRUE(Near(y, want, Tolerance(c, 0.5f)));
      }
    }
  });
}

TEST(Norm, RowOfOneElement_HasNoDeviation) {
  ThreadPool pool(1);
  std::vector<float> y(1);
  const Case c{{3.25f}, {2.0f}, {0.5f}, 1, 1};
  LayerNorm(Args(c, y, true), pool);
  EXPECT_EQ(y[0], 0.5f);
  RmsNorm(Args(c, y, false), pool);
  EXPECT_NEAR(y[0], 2.0f, 1e-5);
}

TEST(Norm, LargeMean_DoesNotCancel) {
  std::mt19937 rng = SeededRng(22);
  ThreadPool pool(2);
  const Case c = MakeCase(rng, 4, 1000, 1000.0f);
  std::vector<float> y(4000), want(4000);
  LayerNorm(Args(c, y, true), pool);
  LayerNormRef(Args(c, want, true));
  // The mean of numbers near 1000 is known to a unit in their last place, 6e-5, against a deviation of 1.
  EXPECT_TRUE(Near(y, want, [&](size_t i) { return 2e-4 * (1 + std::fabs(c.weight[i % 1000])); }));
}

TEST(Norm, InPlace_IsTheSame) {
  std::mt19937 rng = SeededRng(23);
  ThreadPool pool(2);
  Case c = MakeCase(rng, 9, 77, 0);
  std::vector<float> y(c.x.size());
  LayerNorm(Args(c, y, true), pool);
  std::vector<float> in_place = c.x;
  NormArgs args = Args(c, in_place, true);
  args.x = in_place.data();
  LayerNorm(args, pool);
  EXPECT_TRUE(SameBits(y, in_place));
  RmsNorm(Args(c, y, false), pool);
  in_place = c.x;
  args.bias = nullptr;
  RmsNorm(args, pool);
  EXPECT_TRUE(SameBits(y, in_place));
}

TEST(Norm, Bits_DependOnNeitherRowsNorThreadsNorInstructionSet) {
  std::mt19937 rng = SeededRng(24);
  const Case c = MakeCase(rng, 40, 523, 0.1f);
  std::vector<float> first_layer, first_rms;
  ForEachTarget([&](int64_t) {
    for (int threads = 1; threads <= 4; ++threads) {
      ThreadPool pool(threads);
      std::vector<float> layer(c.x.size()), rms(c.x.size());
      LayerNorm(Args(c, layer, true), pool);
      RmsNorm(Args(c, rms, false), pool);
      if (first_layer.empty()) {
        first_layer = layer;
        first_rms = rms;
      }
      EXPECT_TRUE(SameBits(layer, first_layer));
      EXPECT_TRUE(SameBits(rms, first_rms));
      for (int64_t row = 0; row < c.rows; ++row) {
        std::vector<float> alone(c.size);
        NormArgs args = Args(c, alone, true);
        args.x += row * c.size;
        args.num_rows = 1;
        LayerNorm(args, pool);
        ASSERT_EQ(std::memcmp(alone.data(), layer.data() + row * c.size, c.size * sizeof(float)), 0);
      }
    }
  });
}

}  // namespace
}  // namespace statehouse::kernels
