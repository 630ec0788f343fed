// What an output of a request must be on a FakeModel, without engine, slots or steps: one token after another from the
// model's definition, text decoded as a whole and searched as a whole.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "engine/event_stream.h"
#include "engine/request.h"
#include "engine/sampling/sampler.h"
#include "models/tokenizer/detokenizer.h"
#include "tests/support/fake_model.h"

namespace statehouse::testing {

struct ReferenceOutput {
  std::vector<int32_t> tokens;
  FinishReason reason = FinishReason::kLength;
  int32_t stop_token = -1;
  int32_t stop_index = -1;
  std::string text;  // as the client shows it
};

inline std::string DecodeAll(const Vocabulary& vocabulary, const std::vector<int32_t>& tokens, bool flush) {
  Detokenizer detokenizer(&vocabulary);
  std::string text;
  for (const int32_t token : tokens) detokenizer.Append(token, &text);
  if (flush) detokenizer.Flush(&text);
  return text;
}

// The first byte at which a stop string completes, if it does so after `shown` bytes.
struct FoundStop {
  int32_t index = -1;
  size_t begin = 0;
  size_t end = 0;
};
inline FoundStop FindStop(const std::vector<std::string>& strings, const std::string& text, size_t shown) {
  for (size_t end = shown + 1; end <= text.size(); ++end) {
    for (size_t idx = 0; idx < strings.size(); ++idx) {
      const size_t size = strings[idx].size();
      if (size <= end && text.compare(end - size, size, strings[idx]) == 0) {
        return {static_cast<int32_t>(idx), end - size, end};
      }
    }
  }
  return {};
}

inline ReferenceOutput Reference(const FakeModel& model, const Vocabulary& vocabulary, const Request& request,
                                 int32_t output) {
  const int64_t vocab_size = model.config().vocab_size;
  Sampler sampler(vocab_size);
  const SamplingPlan plan(request.sampling, vocab_size);
  std::vector<uint32_t> memory(vocab_size);
  TokenCounts counts{std::span<uint32_t>(memory)};
  counts.AddPrompt(request.prompt);
  std::vector<int32_t> ends = request.stop.stop_token_ids;
  if (!request.stop.ignore_eos) ends.insert(ends.end(), model.config().eos_ids.begin(), model.config().eos_ids.end());
  std::vector<int32_t> history = request.prompt;
  ReferenceOutput result;
  while (true) {
    const int64_t count = static_cast<int64_t>(result.tokens.size());
    ChoiceContext context;
    context.key = {*request.sampling.seed, output, static_cast<int64_t>(history.size())};
    context.counts = &counts;
    context.output = result.tokens;
    if (count < request.stop.min_tokens) context.forbidden = ends;
    const int32_t token = sampler.Choose(plan, context, model.LogitsAfter(history));
    if (token < 0 || std::find(ends.begin(), ends.end(), token) != ends.end()) {
      result.reason = FinishReason::kStop;
      result.stop_token = token;
      break;
    }
    const size_t shown = DecodeAll(vocabulary, result.tokens, false).size();
    result.tokens.push_back(token);
    history.push_back(token);
    counts.AddOutput(token);
    const std::string text = DecodeAll(vocabulary, result.tokens, false);
    const FoundStop found = FindStop(request.stop.stop, text, shown);
    if (found.index >= 0 && count + 1 >= request.stop.min_tokens) {
      result.reason = FinishReason::kStop;
      result.stop_index = found.index;
      result.text = text.substr(0, request.stop.include_stop ? found.end : found.begin);
      return result;
    }
    if (count + 1 >= request.stop.max_tokens) break;
  }
  result.text = DecodeAll(vocabulary, result.tokens, true);
  return result;
}

}  // namespace statehouse::testing
