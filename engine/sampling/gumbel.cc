#include "engine/sampling/gumbel.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/math/scalar_math.h"

namespace statehouse {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
// Above GumbelFromWord() of every word, so that a token this far below the best score cannot win.
constexpr double kMostNoise = 22.9;

// At least GumbelFromWord(word): -log(u) > 1 - u, and 1 - u >= 2^(bit width of ~word - 33).
double NoiseBound(uint32_t word) {
  constexpr double kAboveLog2 = 0.69315;
  return (33 - std::bit_width(~word)) * kAboveLog2;
}

// The best score so far. What cannot win is skipped by its bound: that saves almost all logarithms and changes no
// result.
struct Best {
  double score = -std::numeric_limits<double>::infinity();
  int32_t id = -1;

  void Offer(double value, int32_t token, uint32_t word) {
    if (value + NoiseBound(word) < score) return;
    const double offered = value + GumbelFromWord(word);
    if (offered > score || (offered == score && token < id)) {
      score = offered;
      id = token;
    }
  }
};

}  // namespace

PhiloxCounter NoiseWords(const ChoiceKey& key, int32_t quad) {
  const uint64_t position = static_cast<uint64_t>(key.position);
  return Philox4x32({static_cast<uint32_t>(quad), static_cast<uint32_t>(position),
                     static_cast<uint32_t>(position >> 32), static_cast<uint32_t>(key.output)},
                    {static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)});
}

double GumbelFromWord(uint32_t word) {
  const double u = (static_cast<double>(word) + 0.5) * 0x1p-32;
  return -kernels::Log(-kernels::Log(u));
}

double GumbelNoise(const ChoiceKey& key, int32_t token) {
  return GumbelFromWord(NoiseWords(key, token >> 2)[token & 3]);
}

int32_t ArgmaxWithNoise(const ChoiceKey& key, std::span<const Candidate> candidates) {
  Best best;
  for (const Candidate& candidate : candidates) {
    if (candidate.value == kMinusInfinity || candidate.value + kMostNoise < best.score) continue;
    best.Offer(candidate.value, candidate.id, NoiseWords(key, candidate.id >> 2)[candidate.id & 3]);
  }
  return best.id;
}

int32_t ArgmaxWithNoise(const ChoiceKey& key, std::span<const float> z) {
  Best best;
  const int32_t size = static_cast<int32_t>(z.size());
  for (int32_t first = 0; first < size; first += 4) {
    const int32_t count = std::min(size - first, 4);
    float largest = z[first];
    for (int32_t lane = 1; lane < count; ++lane) largest = std::max(largest, z[first + lane]);
    if (largest == kMinusInfinity || largest + kMostNoise < best.score) continue;
    const PhiloxCounter words = NoiseWords(key, first >> 2);
    for (int32_t lane = 0; lane < count; ++lane) {
      if (z[first + lane] > kMinusInfinity) best.Offer(z[first + lane], first + lane, words[lane]);
    }
  }
  return best.id;
}

}  // namespace statehouse
