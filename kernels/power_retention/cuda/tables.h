// How a plan cuts packed sequences: what host and kernels both know.
#pragma once

#include <cstdint>

namespace statehouse::kernels {

struct ChunkEntry {
  int64_t first_row;  // in the packed tensors
  int num_rows;       // 1 … C
  int sequence;
  int index;    // of the chunk within its sequence
  int is_last;  // of its sequence
};

struct BlockEntry {  // rows that one thread block answers
  int chunk;
  int first_row;  // within the chunk
};

inline constexpr int kTokenTile = 64;   // tokens that fold and query bring to shared memory at a time
inline constexpr int kBlockRows = 128;  // rows of a BlockEntry

}  // namespace statehouse::kernels
