// One submitted request on its way through the engine: what was asked, prepared for the step loop, and how far it has
// come.
//
// Submit() makes it on the caller's thread, with all the memory it will ever need; from then on the roster hands it to
// the engine thread, and in the end to the reaper, so that the step loop neither allocates nor frees. Thread-safety:
// fields under "prepared" are constant; those under "engine" belong to the engine thread once it was popped.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "engine/event_stream.h"
#include "engine/output_text.h"
#include "engine/request.h"
#include "engine/sampling/sampler.h"
#include "engine/stop_matcher.h"
#include "models/tokenizer/vocabulary.h"

namespace statehouse {

// One of the n outputs.
struct Output {
  enum class State : uint8_t {
    kNew,      // the prompt is not through
    kWaiting,  // has its first token, and no slot yet
    kRunning,  // a sequence carries it
    kFinished,
  };
  Output(const Vocabulary* vocabulary, bool show_special, const StopPatterns* patterns)
      : text(vocabulary, show_special, patterns) {}

  State state = State::kNew;
  int32_t token = -1;  // the newest token: the input of its next row
  int64_t num_tokens = 0;
  OutputText text;
  std::vector<int32_t> tokens;  // only kept for a LogitsMask
};

struct Generation {
  struct Settings {
    int64_t vocab_size = 0;
    std::vector<int32_t> eos_ids;
    const Vocabulary* vocabulary = nullptr;
    int64_t event_capacity = 0;
    int64_t max_tokens = 0;  // resolved
    uint64_t seed = 0;       // resolved
    absl::Time submitted;
    std::shared_ptr<Waker> waker;
  };
  Generation(std::unique_ptr<Request> request, const Settings& settings);
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  int64_t prompt_size() const { return static_cast<int64_t>(request->prompt.size()); }
  int32_t n() const { return request->n; }
  // Scheduling order: priority, then arrival.
  std::pair<int32_t, int64_t> order() const { return {request->priority, arrival}; }
  // The next order of snapshots; null if none is left.
  const SnapshotOrder* next_order() const {
    return next_snapshot < request->snapshots.size() ? &request->snapshots[next_snapshot] : nullptr;
  }
  bool wants_prompt_logprobs() const { return request->num_prompt_logprobs >= 0; }

  // --- prepared ---
  const std::unique_ptr<const Request> request;
  const std::shared_ptr<EventStream> stream;
  const SamplingPlan sampling;
  const StopPatterns patterns;
  std::vector<int32_t> end_tokens;  // EOS and stop tokens, sorted
  const int64_t max_tokens;
  const uint64_t seed;
  const absl::Time submitted;

  // --- roster (under its mutex) ---
  int64_t arrival = 0;
  Generation* previous = nullptr;  // in the queue; `next` also links the graveyard
  Generation* next = nullptr;
  // Where the roster's maps keep this request. Its nodes come back here when it is unregistered, to be freed with it.
  using Table = std::map<std::pair<std::string, std::string>, Generation*>;  // by principal and id
  using Principals = std::map<std::string, int64_t>;                         // number of requests
  Table::iterator table_entry;
  Principals::iterator principal_entry;
  Table::node_type table_node;
  Principals::node_type principal_node;

  // --- engine ---
  std::vector<Output> outputs;
  int32_t source_slot = -1;  // holds the prompt's end, from which outputs are forked
  int32_t num_reserved = 0;  // slots promised and not taken yet
  int32_t num_waiting = 0;   // outputs in kWaiting
  int32_t num_running = 0;   // outputs in kRunning
  int32_t num_unfinished = 0;
  int64_t cached_tokens = 0;  // copied from request->from
  size_t next_snapshot = 0;   // of request->snapshots
  bool closing = false;       // it has ended but for its last snapshot, which is being copied
  Ending::Why closing_why = Ending::Why::kFinished;
  bool no_number = false;    // an output ended because its logits were not numbers
  bool prompt_seen = false;  // the prompt went through once: first tokens are chosen
  int64_t prompt_tokens_done = 0;
  int64_t completion_tokens = 0;
  int64_t furthest = 0;       // largest position of its sequences
  int64_t step_room = -1;     // events that fit in this step; -1: not asked yet
  bool step_blocked = false;  // something wants to run in this step and has no room for its events
  bool blocked = false;       // the same, in the step before
  absl::Time blocked_since;
  int64_t taken_when_blocked = 0;
  absl::Time admitted;     // InfinitePast: not yet
  absl::Time first_token;  // InfinitePast: not yet
};

}  // namespace statehouse
