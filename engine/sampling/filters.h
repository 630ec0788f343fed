// top-k, top-p, min-p and typical-p over a list of candidates. Each keeps at least one. Candidates hold z = (logit -
// largest logit) / temperature, so a candidate's weight is e^z; sums are formed in double, or exactly (top-p). "Best
// first" is by value, descending, then by id, ascending; no filter depends on the order in which it finds the list.
// None allocates. Thread-safety: one thread at a time for one FilterScratch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/sampling/gumbel.h"  // Candidate

namespace statehouse {

// A candidate ranked by something else than its value.
struct Ranked {
  double key;     // smaller is better
  double weight;  // e^z, or its units
  int32_t id;
  float value;
};

struct FilterScratch {
  explicit FilterScratch(int64_t vocab_size) : ranked(vocab_size) {}
  std::vector<Ranked> ranked;  // [vocab]
};

bool BetterCandidate(const Candidate& a, const Candidate& b);

// All of these reorder and shorten `list`.
using CandidateList = std::span<Candidate>;
// The k best. k >= 1.
void KeepTopK(int64_t k, CandidateList* list);
// The fewest best candidates whose probabilities sum to at least p. p in (0, 1).
void KeepTopP(double p, FilterScratch* scratch, CandidateList* list);
// Those with at least min_p times the probability of the best.
void KeepMinP(double min_p, CandidateList* list);
// The fewest whose probabilities sum to at least p, taken in the order of how close -log(probability) is to the entropy
// (Meister et al., "Locally Typical Sampling"); equals by id.
void KeepTypicalP(double p, FilterScratch* scratch, CandidateList* list);

}  // namespace statehouse
