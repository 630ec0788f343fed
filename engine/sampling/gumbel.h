// The noise behind a choice: argmax over tokens of (z + Gumbel noise) is a draw from softmax(z), and the noise is a
// pure function of seed, output, position and token. docs/sampling.md is the recipe; a GPU must make the same bits.
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <span>

#include "engine/sampling/philox.h"

namespace statehouse {

// Names one choice: the token at `position` of output `output` of a request with this seed.
struct ChoiceKey {
  uint64_t seed = 0;
  int32_t output = 0;
  int64_t position = 0;
};

// A token that may still be chosen, with its logit or scaled logit.
struct Candidate {
  float value;
  int32_t id;
};

// The random words of tokens 4 * quad … 4 * quad + 3.
PhiloxCounter NoiseWords(const ChoiceKey& key, int32_t quad);
// A random word as Gumbel(0, 1) noise: u = (word + 1/2) / 2^32, -log(-log(u)). In (-3.14, 22.88).
double GumbelFromWord(uint32_t word);
double GumbelNoise(const ChoiceKey& key, int32_t token);

// argmax of value + noise over candidates whose value is above -infinity; the lowest id among equals; -1 if there is
// none.
int32_t ArgmaxWithNoise(const ChoiceKey& key, std::span<const Candidate> candidates);
// The same over all ids, z[id]; much faster than listing them.
int32_t ArgmaxWithNoise(const ChoiceKey& key, std::span<const float> z);

}  // namespace statehouse
