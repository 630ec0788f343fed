// What holds a slot: the tokens of one running generation, as far as the model has read them. Plain data of the engine
// thread.
#pragma once

#include <cstdint>
#include <tuple>

#include "engine/generation.h"

namespace statehouse {

struct Sequence {
  enum class Phase : uint8_t {
    kIdle,       // holds nothing
    kPrompt,     // reads the prompt
    kSource,     // has read the prompt, and waits to be copied into forks
    kForking,    // is being filled from the source
    kRestoring,  // is being filled from a snapshot
    kSaving,     // is being copied to a snapshot, and goes on as `after_saving`
    kDecoding,   // one row per step
  };
  Phase phase = Phase::kIdle;
  int64_t id = 0;  // of what holds the slot, never used again; 0: nothing
  Generation* generation = nullptr;
  int32_t slot = -1;
  int32_t output = -1;   // kForking, kDecoding (and kSaving then)
  int64_t position = 0;  // tokens held
  Phase after_saving = Phase::kIdle;
  int64_t copied = 0;        // kForking, kRestoring, kSaving: see SlotPool::CopySlice()
  int64_t switch_units = 0;  // slices of the switch-over that have run
  bool switched = false;     // all of them have
  int64_t last_served = 0;   // see Work::last_served

  // Scheduling order: the request's, then the prompt and the source before outputs.
  std::tuple<int32_t, int64_t, int32_t> order() const {
    return {generation->request->priority, generation->arrival, output};
  }
};

}  // namespace statehouse
