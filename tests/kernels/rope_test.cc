#include "kernels/rope/rope.h"

#include "tests/kernels/kernel_test_support.h"

namespace statehouse::kernels {
namespace {

// The definition in long double: 64 bits of mantissa leave 1e-10 of an angle near 2^31.
void LongAngles(int head_dim, double theta, int64_t position, std::vector<double>& cos, std::vector<double>& sin) {
  for (int i = 0; i < head_dim / 2; ++i) {
    const long double exponent = static_cast<long double>(-2 * i) / head_dim;
    const long double angle = static_cast<long double>(position) * std::pow(static_cast<long double>(theta), exponent);
    cos.push_back(static_cast<double>(std::cos(angle)));
    sin.push_back(static_cast<double>(std::sin(angle)));
  }
}

TEST(Rope, Angles_AreRightAtAnyPosition) {
  for (const double theta : {1e4, 1e6, 5e6, 123.0}) {
    for (const int head_dim : {2, 64, 128, 130}) {
      const RopeFrequencies frequencies(head_dim, theta);
      for (const int64_t position : {int64_t{0}, int64_t{1}, int64_t{4096}, (int64_t{1} << 24) + 1,
                                     (int64_t{1} << 31) + 5, (int64_t{1} << 31) - 1}) {
        SCOPED_TRACE(::testing::Message() << "theta " << theta << ", d " << head_dim << ", position " << position);
        std::vector<float> cos(head_dim / 2), sin(head_dim / 2);
        frequencies.Angles(position, cos.data(), sin.data());
        std::vector<double> want_cos, want_sin;
        LongAngles(head_dim, theta, position, want_cos, want_sin);
        // Half a unit in the last place of a float32 below 1.
        EXPECT_TRUE(Near(cos, want_cos, [](size_t) { return 3.1e-8; }));
        EXPECT_TRUE(Near(sin, want_sin, [](size_t) { return 3.1e-8; }));
      }
    }
  }
}

TEST(Rope, PositionZero_TurnsNothing) {
  const RopeFrequencies frequencies(64, 1e4);
  std::vector<float> cos(32), sin(32);
  frequencies.Angles(0, cos.data(), sin.data());
  for (int i = 0; i < 32; ++i) {
    EXPECT_EQ(cos[i], 1.0f);
    EXPECT_EQ(sin[i], 0.0f);
  }
}

TEST(Rope, AnyHeadSize_AgreesWithTheReferenceAndWithItselfEverywhere) {
  std::mt19937 rng = SeededRng(31);
  for (const int head_dim : {2, 6, 16, 34, 64, 128, 130}) {
    const int64_t rows = 9, heads = 3;
    const std::vector<float> x = Normals(rng, rows * heads * head_dim);
    const std::vector<float> cos = Uniforms(rng, rows * head_dim / 2, -1, 1);
    const std::vector<float> sin = Uniforms(rng, rows * head_dim / 2, -1, 1);
    RopeArgs args{.cos = cos.data(), .sin = sin.data(), .num_rows = rows, .num_heads = heads, .head_dim = head_dim};
    std::vector<float> want = x;
    args.x = want.data();
    ApplyRopeRef(args);
    std::vector<float> first;
    ForEachTarget([&](int64_t) {
      for (int threads = 1; threads <= 3; ++threads) {
        ThreadPool pool(threads);
        std::vector<float> y = x;
        args.x = y.data();
        ApplyRope(args, pool);
        // Two roundings of terms up to |x|.
        EXPECT_TRUE(Near(y, want, [&](size_t i) { return 2.4e-7 * (1 + std::fabs(want[i]) + 5); }));
        if (first.empty()) first = y;
        EXPECT_TRUE(SameBits(y, first));
      }
    });
  }
}

TEST(Rope, DotProducts_DependOnDistanceAlone) {
  std::mt19937 rng = SeededRng(32);
  const int head_dim = 64;
  ThreadPool pool(1);
  const RopeFrequencies frequencies(head_dim, 1e4);
  const std::vector<float> q = Normals(rng, head_dim), k = Normals(rng, head_dim);
  const auto dot_at = [&](int64_t q_position, int64_t k_position) {
    std::vector<float> cos(64), sin(64), rows = q;
    rows.insert(rows.end(), k.begin(), k.end());
    frequencies.Angles(q_position, cos.data(), sin.data());
    frequencies.Angles(k_position, cos.data() + 32, sin.data() + 32);
    ApplyRope(
        {.x = rows.data(), .cos = cos.data(), .sin = sin.data(), .num_rows = 2, .num_heads = 1, .head_dim = head_dim},
        pool);
    double sum = 0;
    for (int i = 0; i < head_dim; ++i) sum += static_cast<double>(rows[i]) * rows[head_dim + i];
    return sum;
  };
  const double near = dot_at(100, 40);
  EXPECT_NEAR(dot_at((int64_t{1} << 24) + 101, (int64_t{1} << 24) + 41), near, 1e-4);
  EXPECT_NEAR(dot_at((int64_t{1} << 31) + 105, (int64_t{1} << 31) + 45), near, 1e-4);
}

}  // namespace
}  // namespace statehouse::kernels
