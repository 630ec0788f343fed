// Byte-pair encoding of one word: which neighbouring tokens become one, and in which order.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace statehouse {

// Thread-safety: immutable once filled.
class MergeTable {
 public:
  struct Merge {
    int32_t rank;  // smaller ones come first
    int32_t id;    // of the token that the two become
  };

  void Reserve(size_t count) { merges_.reserve(count); }
  // Tokens `left` and `right` become merge.id. The last call for a pair holds.
  void Set(int32_t left, int32_t right, Merge merge) { merges_[Key(left, right)] = merge; }
  // Null if the two stay apart.
  const Merge* Find(int32_t left, int32_t right) const {
    const auto found = merges_.find(Key(left, right));
    return found == merges_.end() ? nullptr : &found->second;
  }

 private:
  static uint64_t Key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }

  absl::flat_hash_map<uint64_t, Merge> merges_;
};

// Memory to merge words in. Thread-safety: one thread at a time.
class WordMerger {
 public:
  // Replaces `ids`, the tokens of a word's bytes, by what they merge to: always the pair of lowest rank, the leftmost
  // of equals. Takes O(n log n) time.
  void MergeAll(const MergeTable& table, std::vector<int32_t>* ids);

 private:
  struct Symbol {
    int32_t id;  // kGone once it is part of the symbol before
    int32_t previous;
    int32_t next;
  };
  struct Candidate {
    int32_t rank;
    int32_t position;  // of the left symbol
    int32_t id;        // of the token that would result

    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  static constexpr int32_t kGone = -1;
  static constexpr int32_t kNone = -1;

  void Consider(const MergeTable& table, int32_t left);
  void Apply(const MergeTable& table, const Candidate& candidate);

  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

}  // namespace statehouse
