// From the engine to the wire: a stream of engine events as GenerateEvents, with text.
//
// Decodes each output's ids with a Detokenizer of its own and releases as much text as the engine calls final. Tokens
// of one output that wait together become one Delta. Thread-safety: one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/event_stream.h"
#include "models/tokenizer/detokenizer.h"
#include "server/served_model.h"
#include "statehouse/v1/generation.pb.h"

namespace statehouse {

// The whole of a single output, as far as it has come.
struct Answer {
  std::vector<int32_t> tokens;
  FinishReason reason = FinishReason::kNone;
  std::string stop_string;  // that matched; empty: none did
  int32_t stop_token = -1;  // that ended it and is none of `tokens`; -1: none did
};

class EventConverter {
 public:
  enum class Result { kNothing, kEvent, kDone };

  // Copies what it needs of `request`; takes the prompt for Started. `model` must outlive this object.
  EventConverter(const v1::GenerateRequest& request, const ServedModel* model, std::shared_ptr<EventStream> stream,
                 std::vector<int32_t> prompt);

  // Output 0 is kept as answer(), for whoever stores what was said. REQUIRES: nothing was taken.
  void KeepAnswer() { keeps_answer_ = true; }
  // Leaves out tokens before that position, and their text.
  void StartAt(int64_t position) { start_at_ = position; }

  // Fills `out` with the next event of the wire, taking engine events as needed. kDone: the stream has ended and `out`
  // holds Done; see stream()->status() for how. kNothing: `out` is empty; ask again when events have arrived.
  Result Take(v1::GenerateEvent* out);

  EventStream* stream() const { return stream_.get(); }
  // Tokens of all outputs that Take() has passed on.
  int64_t num_tokens() const { return num_tokens_; }
  int64_t num_tokens(int32_t output) const { return outputs_[output].num_tokens; }
  // Empty without KeepAnswer().
  const Answer& answer() const { return answer_; }

 private:
  struct Output {
    Output(const Vocabulary* vocabulary, bool show_special) {
      if (vocabulary != nullptr) detokenizer.emplace(vocabulary, show_special);
    }
    std::optional<Detokenizer> detokenizer;  // empty: the checkpoint has no tokenizer, and there is no text
    std::string pending;                     // decoded, not yet released
    int64_t released_bytes = 0;              // of the whole text
    int64_t num_tokens = 0;
  };

  bool Peek();  // is there an event in next_?
  void Start(const Event& event, v1::Started* out);
  void AddToken(const Event& event, v1::Delta* out);
  void FinishOutput(const Event& event, v1::Finished* out);
  void AddToAnswer(const Event& event);
  void Release(Output* output, int64_t text_bytes, std::string* text);
  void AddLogprobs(const Event& event, v1::TokenLogprobs* out) const;

  const ServedModel* const model_;
  const std::shared_ptr<EventStream> stream_;
  const std::vector<std::string> stop_strings_;
  const bool return_token_ids_;
  const bool logprobs_;
  const bool show_special_;
  std::vector<int32_t> prompt_;
  std::vector<Output> outputs_;
  std::optional<Event> next_;
  bool keeps_answer_ = false;
  Answer answer_;
  int64_t start_at_ = 0;
  int64_t num_tokens_ = 0;
};

// A token's own text as valid UTF-8: a special token's name, else its bytes.
std::string TokenText(const Tokenizer& tokenizer, int32_t id);

// Adds a streamed event to the single answer of GenerateOnce.
void Fold(const v1::GenerateEvent& event, v1::GenerateResponse* response);

v1::FinishReason ToProto(FinishReason reason);
FinishReason FromProto(v1::FinishReason reason);  // kError for a value that is none of ours

}  // namespace statehouse
