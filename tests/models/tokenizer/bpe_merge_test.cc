#include "models/tokenizer/bpe_merge.h"

#include <chrono>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace statehouse {
namespace {

// The slow twin: looks for the best pair of the whole word, merges it, starts again.
std::vector<int32_t> MergeSlowly(const MergeTable& table, std::vector<int32_t> ids) {
  while (true) {
    size_t best = ids.size();
    const MergeTable::Merge* best_merge = nullptr;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const MergeTable::Merge* merge = table.Find(ids[i], ids[i + 1]);
      if (merge != nullptr && (best_merge == nullptr || merge->rank < best_merge->rank)) {
        best = i;
        best_merge = merge;
      }
    }
    if (best_merge == nullptr) return ids;
    ids[best] = best_merge->id;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

TEST(BpeMerge, RandomTablesAndWords_EqualTheSlowTwin) {
  std::mt19937 random(5);
  WordMerger merger;
  for (int round = 0; round < 300; ++round) {
    // Each merge makes a token of its own, as in trained tables.
    MergeTable table;
    const int32_t num_bytes = 2 + static_cast<int32_t>(random() % 3);
    int32_t next_id = num_bytes;
    for (int32_t rank = 0; rank < 20; ++rank) {
      const int32_t left = static_cast<int32_t>(random()) & 0x7FFFFFFF;
      const int32_t right = static_cast<int32_t>(random()) & 0x7FFFFFFF;
      if (table.Find(left % next_id, right % next_id) == nullptr)
        table.Set(left % next_id, right % next_id, {rank, next_id});
      ++next_id;
    }
    for (int word = 0; word < 20; ++word) {
      std::vector<int32_t> ids(random() % 60);
      for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint32_t>(num_bytes));
      std::vector<int32_t> merged = ids;
      merger.MergeAll(table, &merged);
      ASSERT_EQ(merged, MergeSlowly(table, ids)) << "round " << round << ", word " << word;
    }
  }
}

TEST(BpeMerge, EmptyWordAndSingleToken_StayAsTheyAre) {
  MergeTable table;
  table.Set(0, 0, {0, 1});
  WordMerger merger;
  std::vector<int32_t> ids;
  merger.MergeAll(table, &ids);
  EXPECT_TRUE(ids.empty());
  ids = {0};
  merger.MergeAll(table, &ids);
  EXPECT_EQ(ids, std::vector<int32_t>{0});
}

TEST(BpeMerge, LastCallForAPair_Holds) {
  MergeTable table;
  table.Set(0, 0, {0, 1});
  table.Set(0, 0, {7, 2});
  WordMerger merger;
  std::vector<int32_t> ids = {0, 0};
  merger.MergeAll(table, &ids);
  EXPECT_EQ(ids, std::vector<int32_t>{2});
}

// A quadratic merge takes hours here.
TEST(BpeMerge, MegabyteRunOfOneByte_MergesInTime) {
  MergeTable table;
  for (int32_t i = 0; i < 12; ++i) table.Set(i, i, {i, i + 1});
  std::vector<int32_t> ids(1 << 20, 0);
  WordMerger merger;
  const auto start = std::chrono::steady_clock::now();
  merger.MergeAll(table, &ids);
  EXPECT_EQ(ids, std::vector<int32_t>(1 << 8, 12));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

}  // namespace
}  // namespace statehouse
