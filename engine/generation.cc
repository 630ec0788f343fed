#include "engine/generation.h"

#include <algorithm>

namespace statehouse {
namespace {

// A mask asks for all ids of an output. More than this many are rare enough to let the list grow.
constexpr int64_t kReservedTokens = 65536;

}  // namespace

Generation::Generation(std::unique_ptr<Request> submitted_request, const Settings& settings)
    : request(std::move(submitted_request)),
      // All n first tokens come at once, so a queue shorter than that could never take them.
      stream(std::make_shared<EventStream>(request->id, request->n,
                                           std::max<int64_t>(settings.event_capacity, request->n), settings.waker)),
      sampling(request->sampling, settings.vocab_size),
      patterns(request->stop.stop),
      end_tokens(EndTokens(request->stop, settings.eos_ids)),
      max_tokens(settings.max_tokens),
      seed(settings.seed),
      submitted(settings.submitted),
      num_unfinished(request->n),
      admitted(absl::InfinitePast()),
      first_token(absl::InfinitePast()) {
  outputs.reserve(request->n);
  for (int32_t idx = 0; idx < request->n; ++idx) {
    outputs.emplace_back(settings.vocabulary, request->show_special_tokens, &patterns);
    if (request->sampling.mask != nullptr) outputs.back().tokens.reserve(std::min(max_tokens, kReservedTokens));
  }
}

}  // namespace statehouse
