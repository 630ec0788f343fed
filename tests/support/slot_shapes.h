// Shapes of slots by the numbers that tests care about.
#pragma once

#include <cstdint>

#include "engine/state/slot_pool.h"
#include "kernels/power_retention/layout.h"

namespace statehouse::testing {

struct SlotNumbers {
  int heads = 1;  // key/value heads, one query head each
  int head_dim = 16;
  int64_t chunk = 8;
  int64_t switch_over = 16;     // tokens
  int64_t max_tail_tokens = 0;  // as kernels::RetentionShape
  int64_t num_layers = 2;
};

inline SlotShape MakeSlotShape(const SlotNumbers& numbers) {
  kernels::RetentionShape shape;
  shape.heads_q = shape.heads_kv = numbers.heads;
  shape.head_dim = numbers.head_dim;
  shape.chunk = numbers.chunk;
  shape.switch_over = numbers.switch_over;
  shape.max_tail_tokens = numbers.max_tail_tokens;
  return {kernels::RetentionLayout::Make(shape).value(), numbers.num_layers};
}

}  // namespace statehouse::testing
