// The engine: one thread that owns the device and all sequence state, and runs steps for as long as there is work.
//
//   auto engine = Engine::Create(model, &vocabulary, options);
//   (*engine)->Start();
//   auto stream = (*engine)->Submit(std::move(request));
//   for (Event event; (*stream)->Next(&event) && event.kind != Event::Kind::kDone;) { ... }
//
// A step takes one row per decoding sequence first, then prompt chunks up to max_num_batched_tokens, in priority and
// arrival order, fairly (scheduler.h says how; core_slots.cc who gets a slot). Thread-safety: every public method may
// be called from any thread, unless it says otherwise.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/clock.h"
#include "engine/event_stream.h"
#include "engine/request.h"
#include "engine/stats.h"
#include "models/model.h"
#include "models/tokenizer/vocabulary.h"

namespace statehouse {

struct EngineOptions {
  int64_t state_memory_bytes = 0;        // --state-memory: all slots together; 0: from max_num_seqs
  int64_t max_num_seqs = 0;              // --max-num-seqs: slots; 0: from state_memory_bytes (both 0: 16 slots)
  int64_t max_num_batched_tokens = 512;  // rows of one step, 1 … 65536; at least one per slot
  int64_t max_num_queued_reqs = 1024;
  int64_t max_num_queued_tokens = 16 << 20;
  int64_t max_requests_per_principal = 0;  // outputs, running and queued (n counts, up to the slots); 0: no limit
  int64_t max_prompt_tokens = 0;           // 0: no limit
  int64_t max_output_tokens = 0;           // 0: no limit
  int64_t min_priority = kLowestPriority;  // --min-priority: the most urgent one that a request may ask for
  int64_t event_capacity = 256;            // undelivered events per call before its sequences pause
  absl::Duration slow_reader_timeout = absl::Seconds(30);
  Clock* clock = nullptr;  // null: Clock::Real()
};

class Engine {
 public:
  // Allocates every slot and buffer. `model` and `vocabulary` must outlive the engine; without a vocabulary (null)
  // there is no text, and stop strings are refused. INVALID_ARGUMENT names the option; RESOURCE_EXHAUSTED says how many
  // bytes are needed.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(Model* model, const Vocabulary* vocabulary,
                                                        const EngineOptions& options);
  // Ends running requests as cancelled and joins the thread.
  virtual ~Engine() = default;

  // Starts the engine thread. Without it, RunStep() drives the engine from the caller's thread (tests, benchmarks).
  virtual void Start() = 0;
  // One step. Returns false if there was nothing to do. REQUIRES: Start() was not called; one thread at a time.
  virtual bool RunStep() = 0;

  // Checks and queues. Errors: INVALID_ARGUMENT (field and allowed range), ALREADY_EXISTS (request id in use),
  // RESOURCE_EXHAUSTED with a retry hint (queue full, principal's limit), UNAVAILABLE (draining or failed).
  virtual absl::StatusOr<std::shared_ptr<EventStream>> Submit(std::unique_ptr<Request> request) = 0;
  // Cancels a queued or running request of that principal; false if there is none.
  virtual bool Cancel(std::string_view request_id, std::string_view principal) = 0;

  // Stops taking requests (UNAVAILABLE); running and queued ones go on.
  virtual void StopAdmission() = 0;
  // Waits until nothing runs or waits; false if `until` passed first.
  virtual bool WaitIdle(absl::Time until) = 0;
  // Cancels everything that still runs or waits.
  virtual void CancelAll() = 0;

  virtual EngineStatus GetStatus() const = 0;
  // Counters and histograms since start, for /metrics.
  virtual const EngineStats& stats() const = 0;
  virtual const EngineOptions& options() const = 0;  // resolved: slot count and bytes are concrete
};

}  // namespace statehouse
