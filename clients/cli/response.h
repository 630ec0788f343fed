// Collects a stream of events into one response, and shows a response as JSON.
//
// Thread-safety: one thread at a time.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "statehouse/v1/generation.pb.h"

namespace statehouse::cli {

class ResponseCollector {
 public:
  void Add(const v1::GenerateEvent& event);
  // Outputs that never finished have the reason FINISH_REASON_UNSPECIFIED.
  const v1::GenerateResponse& response() const { return response_; }

 private:
  v1::Output* OutputAt(int index);
  v1::GenerateResponse response_;
};

// "stop", "length", "cancelled", "deadline", "error"; "" if unspecified.
std::string FinishReasonName(v1::FinishReason reason);

// One JSON object: request_id, model, seed, prompt_token_ids, prompt_logprobs, outputs[] of index, token_ids, text,
// logprobs, finish_reason, stop_string, stop_token_id; usage; timings (seconds); cache. Absent things are null or left
// out of lists, so that every key is always there. A status that is not OK adds "error": {code, message}.
std::string ResponseJson(const v1::GenerateResponse& response, const absl::Status& status);

}  // namespace statehouse::cli
