#include "engine/sampling/gumbel.h"

#include <algorithm>
#include <limits>

#include "kernels/sampling/choice_math.h"

namespace statehouse {
namespace {

using kernels::kMostNoise;
using kernels::NoiseBound;

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

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
  return kernels::ChoiceWords(key.seed, key.output, key.position, quad);
}

double GumbelFromWord(uint32_t word) { return kernels::GumbelFromWord(word); }

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
