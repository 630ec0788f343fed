// What comes back for one request: a bounded queue of events from the engine thread to one consumer.
//
// Events carry token ids and how many bytes of each output's text are final; the consumer decodes the same ids with its
// own Detokenizer and shows that many bytes (stop strings hold text back). So the engine never allocates to emit. When
// the queue is full the sequence pauses and keeps its slot; see EngineOptions::slow_reader_timeout. Taking an event and
// cancelling wake a sleeping engine. To show an output's text: Append() its ids, Flush() at kOutputFinished, and show
// the first `text_bytes` bytes of what came out. Thread-safety: the engine thread produces; one consumer thread at a
// time takes; Cancel() from anywhere.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/request.h"
#include "engine/waker.h"

namespace statehouse {

enum class FinishReason : uint8_t {
  kNone,
  kStop,       // EOS, a stop token or a stop string
  kLength,     // max_tokens
  kCancelled,  // Cancel(), or the client went away
  kDeadline,   // the request's deadline, or a slow reader's timeout
  kError,      // the device failed, or the logits were not numbers
};
const char* FinishReasonName(FinishReason reason);  // "stop", "length", "cancelled", "deadline", "error"

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;  // natural log of the model's own probability, before bias, penalties and temperature
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;      // prompt tokens that were copied from a snapshot, not computed
  int64_t completion_tokens = 0;  // all outputs together
};

// Seconds since submission, and durations in seconds.
struct Timings {
  double queued = 0;       // submission to admission
  double prefill = 0;      // admission to the first token
  double decode = 0;       // first token to the end
  double first_token = 0;  // submission to the first token (TTFT)
  double total = 0;
};

// How a request ended early, as numbers: EventStream::status() words it on the consumer's side, so that the engine
// thread does not allocate.
struct Ending {
  enum class Why : uint8_t {
    kFinished,    // OK
    kCancelled,   // CANCELLED
    kShutDown,    // CANCELLED: the engine was destroyed
    kDeadline,    // DEADLINE_EXCEEDED
    kSlowReader,  // DEADLINE_EXCEEDED
    kNoNumber,    // INTERNAL: the model computed logits that are not numbers
  };
  Why why = Why::kFinished;
  int64_t prompt_tokens = 0;
  int64_t prompt_tokens_done = 0;
  int64_t completion_tokens = 0;  // all outputs
  int64_t position = 0;           // tokens held by the sequence that had come furthest
  absl::Duration timeout;         // kSlowReader
};

struct Event {
  enum class Kind : uint8_t {
    kStarted,         // once, at admission; `seed`
    kPromptLogprob,   // per prompt token when asked: token, logprob, top
    kToken,           // one generated token of output `output`
    kOutputFinished,  // output `output` ended: reason, stop
    kDone,            // last event: status, usage, timings
  };
  Kind kind = Kind::kToken;
  FinishReason reason = FinishReason::kNone;
  int32_t output = 0;  // 0 … n-1
  int32_t token = 0;
  float logprob = 0;
  int32_t num_top = 0;      // entries used in `top`
  int32_t stop_index = -1;  // kOutputFinished: which of StopConditions::stop matched
  int32_t stop_token = -1;  // kOutputFinished: the EOS or stop token that ended it (it is not emitted as kToken)
  int64_t position = 0;     // kToken, kPromptLogprob: the token's position in its sequence
  int64_t text_bytes = 0;   // kToken, kOutputFinished: this output's text is final up to this many bytes
  uint64_t seed = 0;        // kStarted
  std::array<TokenLogprob, kMaxLogprobs> top;
};

class EventStream {
 public:
  // Tells a consumer that events are waiting: called by the engine thread at most once per step, must be quick, must
  // not block or allocate, and must not call SetListener().
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void OnEvents() = 0;
  };

  // Holds `capacity` events, and n + 1 more places for kOutputFinished and kDone. `waker` may be null.
  EventStream(std::string request_id, int32_t n, int64_t capacity, std::shared_ptr<Waker> waker = nullptr);

  const std::string& request_id() const { return request_id_; }
  int32_t n() const { return n_; }

  // --- consumer ---
  // Takes the oldest event; false if none waits.
  bool TryNext(Event* event);
  // Waits until an event is there; false if `until` passed first, and at once when kDone was taken.
  bool Next(Event* event, absl::Time until = absl::InfiniteFuture());
  // After kDone: how it ended. OK also for outputs that reached a stop or length.
  absl::Status status() const;
  Usage usage() const;
  Timings timings() const;
  // Null: none. Once it returns, the old listener is not called any more. The new one is told of events to come: what
  // came before must be looked for once.
  void SetListener(Listener* listener);
  // Asks the engine to stop within one step; events up to kDone still come.
  void Cancel();
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

  // --- engine thread ---
  // Free places, less the n + 1 that are kept for kOutputFinished and kDone.
  int64_t room() const;
  // Number of events the consumer has taken.
  int64_t taken() const { return head_.load(std::memory_order_acquire); }
  // Is room() >= needed? If not, the engine is woken when the consumer takes an event.
  bool HasRoomOrWake(int64_t needed);
  void Push(const Event& event);  // REQUIRES: room() > 0, or kind is kOutputFinished or kDone
  // Both push kDone, whose reason says in one word what status() tells.
  void Finish(const Ending& ending, const Usage& usage, const Timings& timings);
  void Finish(absl::Status status, const Usage& usage, const Timings& timings);
  // Once per step, if anything was pushed.
  void NotifyListener();
  // A push will come soon: asks the cache for where it goes, which another thread read last.
  void ExpectPush() const;

 private:
  void PushDone(FinishReason reason);

  const std::string request_id_;
  const int32_t n_;
  const std::shared_ptr<Waker> waker_;
  std::vector<Event> ring_;  // single producer, single consumer; indices below count events since the start
  std::atomic<int64_t> head_{0};
  std::atomic<int64_t> tail_{0};
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> wants_room_{false};
  bool dirty_ = false;       // owned by the engine thread
  bool done_taken_ = false;  // owned by the consumer
  // std, not absl: Debian's Abseil is not instrumented, so under ThreadSanitizer an absl::Mutex orders nothing.
  mutable std::mutex mu_;
  std::condition_variable arrived_;  // for Next()
  absl::Status status_;              // guarded by mu_, as are the three below
  Ending ending_;
  Usage usage_;
  Timings timings_;
  std::mutex listener_mu_;  // apart from mu_, so that a listener may ask for status()
  Listener* listener_ = nullptr;
};

}  // namespace statehouse
