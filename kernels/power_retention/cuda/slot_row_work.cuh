// What a block of AnswerRow works on, and where it keeps it.
#pragma once

#include "kernels/power_retention/cuda/slot_args.cuh"

namespace statehouse::kernels {

inline constexpr int kRowThreads = 256;
inline constexpr int kRowWarps = kRowThreads / 32;
inline constexpr int kRowQueries = 16;
inline constexpr int kStageRows = 8;

template <int d>
struct RowShape {
  static constexpr int kPanels = d / 32;
  static constexpr int kPanelBytes = kStageRows * 32 * 4;
  static constexpr int kMatrixBytes = kPanels * kPanelBytes;
  static constexpr int kStageBytes = kMatrixBytes + 64;  // z and pairs, or the gates' sums, behind the rows
  // Stages of a warp: two blocks fit a multiprocessor; at head size 64 a block fits the 99 KB of compute
  // capability 8.6.
  static constexpr int kRing = d == 64 ? 5 : 3;
};

// A block's stretch of the head's list.
struct RowWork {
  int first_stage, num_stages;  // of the state
  int first_group, num_groups;  // of 8 keys of the tail; a chunk begins a group
  int all_groups;
  int parts;  // stretches of the list; blocks beyond have nothing to do

  RowWork() = default;
  __device__ RowWork(const SlotView& view, const TilePlace& place, int most_parts, int part) {
    constexpr int kLeast = 2 * kRowWarps;  // stages of a stretch
    const int stages = place.first_chunk > 0 ? view.expanded / kStageRows : 0;
    all_groups =
        static_cast<int>(place.chunk - place.first_chunk) * GroupsPerChunk(view) + place.chunk_row / kStageRows + 1;
    const int all = stages + 2 * all_groups;
    parts = max(1, min(most_parts, all / kLeast));
    const int begin = Border(all, part), end = Border(all, part + 1);
    first_stage = min(begin, stages);
    num_stages = min(end, stages) - first_stage;
    first_group = (max(begin, stages) - stages + 1) / 2;
    num_groups = (max(end, stages) - stages + 1) / 2 - first_group;
  }
  static __device__ int GroupsPerChunk(const SlotView& view) { return (view.chunk + kStageRows - 1) / kStageRows; }
  __device__ bool HoldsLast() const { return num_groups > 0 && first_group + num_groups == all_groups; }

 private:
  // A head that fits a GPU's memory has less than 2^24 stages, and less than 2^8 parts: 32 bits do.
  __device__ int Border(int all, int part) const {
    return static_cast<int>(static_cast<uint32_t>(all) * static_cast<uint32_t>(part) / static_cast<uint32_t>(parts));
  }
};

// What is the same for all threads lies here, too: registers are short.
template <int d>
struct RowShared {
  TilePlace place;
  RowWork work;
  double closed;           // log gates of the tail's whole chunks
  double gate;             // of the row's own chunk up to it
  float2 queries[d][10];   // [element][g]: heads g and g + 8; padded so that rows 2t begin in other banks
  float key[d], value[d];  // of the new row, where this block answers them
  bool is_last;            // the block, of its head's
  bool is_due;             // the header says less than what is folded
  union {
    alignas(16) char ring[kRowWarps][RowShape<d>::kRing][RowShape<d>::kStageBytes];
    struct {
      float y[kRowWarps][kRowQueries][d + 4];
      float denominators[kRowWarps][kRowQueries];
    } sums;
    struct {
      float y[kRowWarps][32];
      float denominators[kRowWarps];
    } stretches;
  };
};

static_assert(sizeof(RowShared<64>) <= 99 << 10);
static_assert(2 * (sizeof(RowShared<128>) + 1024) <= 228 << 10);

}  // namespace statehouse::kernels
