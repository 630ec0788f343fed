#include "models/tokenizer/bpe_merge.h"

#include <algorithm>
#include <functional>

namespace statehouse {

void WordMerger::Consider(const MergeTable& table, int32_t left) {
  const int32_t right = symbols_[static_cast<size_t>(left)].next;
  if (right == kNone) return;
  const MergeTable::Merge* merge =
      table.Find(symbols_[static_cast<size_t>(left)].id, symbols_[static_cast<size_t>(right)].id);
  if (merge != nullptr) heap_.push_back({merge->rank, left, merge->id});
}

void WordMerger::MergeAll(const MergeTable& table, std::vector<int32_t>* ids) {
  const int32_t count = static_cast<int32_t>(ids->size());
  symbols_.clear();
  heap_.clear();
  for (int32_t i = 0; i < count; ++i) {
    symbols_.push_back({(*ids)[static_cast<size_t>(i)], i - 1, i + 1 < count ? i + 1 : kNone});
  }
  for (int32_t i = 0; i < count; ++i) Consider(table, i);
  std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    const Candidate candidate = heap_.back();
    heap_.pop_back();
    Apply(table, candidate);
  }
  ids->clear();
  for (const Symbol& symbol : symbols_) {
    if (symbol.id != kGone) ids->push_back(symbol.id);
  }
}

void WordMerger::Apply(const MergeTable& table, const Candidate& candidate) {
  Symbol& left = symbols_[static_cast<size_t>(candidate.position)];
  if (left.id == kGone || left.next == kNone) return;
  Symbol& right = symbols_[static_cast<size_t>(left.next)];
  // The pair may have changed since. One that makes the same token in another way still counts, at its old rank, as it
  // does in the `tokenizers` package.
  const MergeTable::Merge* merge = table.Find(left.id, right.id);
  if (merge == nullptr || merge->id != candidate.id) return;
  left.id = candidate.id;
  left.next = right.next;
  right.id = kGone;
  if (left.next != kNone) symbols_[static_cast<size_t>(left.next)].previous = candidate.position;
  for (const int32_t position : {left.previous, candidate.position}) {
    if (position == kNone) continue;
    const size_t before = heap_.size();
    Consider(table, position);
    if (heap_.size() > before) std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }
}

}  // namespace statehouse
