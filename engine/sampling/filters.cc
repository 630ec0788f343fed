#include "engine/sampling/filters.h"

#include <algorithm>
#include <cmath>

#include "engine/sampling/weight.h"
#include "kernels/math/scalar_math.h"

namespace statehouse {
namespace {

constexpr int64_t kFirstSorted = 256;  // most choices need fewer candidates than this, so most of the sort is saved

bool BetterRanked(const Ranked& a, const Ranked& b) { return a.key < b.key || (a.key == b.key && a.id < b.id); }

// Fills scratch->ranked with the candidates' weights, summed in the order of their ids so that the sum does not depend
// on how a filter before this one left the list. Returns the sum.
double Weigh(CandidateList list, FilterScratch* scratch) {
  const auto by_id = [](const Candidate& a, const Candidate& b) { return a.id < b.id; };
  if (!std::is_sorted(list.begin(), list.end(), by_id)) std::sort(list.begin(), list.end(), by_id);
  double sum = 0;
  for (size_t idx = 0; idx < list.size(); ++idx) {
    const double weight = Weight(list[idx].value);
    scratch->ranked[idx] = {-static_cast<double>(list[idx].value), weight, list[idx].id, list[idx].value};
    sum += weight;
  }
  return sum;
}

// Keeps the shortest best-first prefix of scratch->ranked whose weights sum to at least `target`, sorting no more than
// needed.
void KeepPrefix(double target, FilterScratch* scratch, CandidateList* list) {
  const std::span<Ranked> ranked(scratch->ranked.data(), list->size());
  const int64_t size = static_cast<int64_t>(ranked.size());
  int64_t kept = 0;
  double sum = 0;
  for (int64_t sorted = 0, chunk = kFirstSorted; kept < size; chunk *= 4) {
    const int64_t end = std::min(size, sorted + chunk);
    if (end < size) std::nth_element(ranked.begin() + sorted, ranked.begin() + end, ranked.end(), BetterRanked);
    std::sort(ranked.begin() + sorted, ranked.begin() + end, BetterRanked);
    sorted = end;
    while (kept < sorted && (kept == 0 || sum < target)) sum += ranked[kept++].weight;
    if (kept < sorted || sum >= target) break;
  }
  for (int64_t idx = 0; idx < kept; ++idx) (*list)[idx] = {ranked[idx].value, ranked[idx].id};
  *list = list->first(kept);
}

}  // namespace

bool BetterCandidate(const Candidate& a, const Candidate& b) {
  return a.value > b.value || (a.value == b.value && a.id < b.id);
}

void KeepTopK(int64_t k, CandidateList* list) {
  if (k >= static_cast<int64_t>(list->size())) return;
  std::nth_element(list->begin(), list->begin() + k, list->end(), BetterCandidate);
  *list = list->first(k);
}

void KeepTopP(double p, FilterScratch* scratch, CandidateList* list) {
  uint64_t sum = 0;
  for (size_t idx = 0; idx < list->size(); ++idx) {
    const Candidate& candidate = (*list)[idx];
    const uint64_t units = kernels::WeightUnits(candidate.value);
    scratch->ranked[idx] = {-static_cast<double>(candidate.value), static_cast<double>(units), candidate.id,
                            candidate.value};
    sum += units;
  }
  KeepPrefix(static_cast<double>(kernels::UnitsToReach(p, sum)), scratch, list);
}

void KeepMinP(double min_p, CandidateList* list) {
  float largest = list->front().value;
  for (const Candidate& candidate : *list) largest = std::max(largest, candidate.value);
  size_t kept = 0;
  for (const Candidate& candidate : *list) {
    // The best is kept by name, since min_p = 1 leaves nothing to rounding.
    if (candidate.value == largest || Weight(candidate.value - largest) >= min_p) (*list)[kept++] = candidate;
  }
  *list = list->first(kept);
}

void KeepTypicalP(double p, FilterScratch* scratch, CandidateList* list) {
  const double sum = Weigh(*list, scratch);
  const double log_sum = kernels::Log(sum);
  // Surprise of a candidate: log(sum) - z. The entropy is its mean.
  double entropy = 0;
  for (size_t idx = 0; idx < list->size(); ++idx) {
    const Ranked& ranked = scratch->ranked[idx];
    if (ranked.weight > 0) entropy += ranked.weight / sum * (log_sum - ranked.value);
  }
  for (size_t idx = 0; idx < list->size(); ++idx) {
    Ranked& ranked = scratch->ranked[idx];
    ranked.key = std::abs((log_sum - ranked.value) - entropy);
  }
  KeepPrefix(p * sum, scratch, list);
}

}  // namespace statehouse
