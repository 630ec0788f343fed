#include "server/prefix_use.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "server/convert_prompt.h"
#include "server/convert_session.h"
#include "server/field_checks.h"

namespace statehouse {
namespace {

constexpr int kMostSaltBytes = 128;
constexpr int kMostPoints = 16;

// `field` holds ascending numbers in [1, most], `what` in words.
template <typename Numbers>
absl::Status CheckPoints(const char* field, const Numbers& numbers, int64_t most, const char* what) {
  if (numbers.size() > kMostPoints) {
    return InvalidField(field, absl::StrCat(numbers.size(), " points"), absl::StrCat("at most ", kMostPoints));
  }
  int64_t least = 1;
  for (int idx = 0; idx < numbers.size(); ++idx) {
    const int64_t number = numbers[idx];
    if (number < least || number > most) {
      return InvalidField(absl::StrCat(field, "[", idx, "]"), absl::StrCat(number),
                          absl::StrCat("ascending numbers in [1, ", most, "], ", what));
    }
    least = number + 1;
  }
  return absl::OkStatus();
}

absl::Status CheckUse(const v1::GenerateRequest& wire, const Request& request) {
  const v1::CacheUse& use = wire.cache();
  if (use.salt().size() > kMostSaltBytes) {
    return InvalidField("cache.salt", absl::StrCat(use.salt().size(), " bytes"),
                        absl::StrCat("at most ", kMostSaltBytes, " bytes"));
  }
  if (absl::Status status = CheckPoints("cache.points", use.points(), static_cast<int64_t>(request.prompt.size()),
                                        "the tokens of the prompt");
      !status.ok()) {
    return status;
  }
  if (!use.after_messages().empty() && !wire.has_chat()) {
    return InvalidField("cache.after_messages", absl::StrCat(use.after_messages_size(), " points"),
                        "none without `chat`: use cache.points");
  }
  return CheckPoints("cache.after_messages", use.after_messages(), wire.chat().messages_size(),
                     "the messages of the chat");
}

// Where the first messages end: as far as what they render to alone begins the prompt.
absl::Status AddMessageEnds(const v1::GenerateRequest& wire, const ServedModel& model, std::span<const int32_t> prompt,
                            std::vector<int64_t>* points) {
  for (const int32_t count : wire.cache().after_messages()) {
    v1::Chat first;
    for (int idx = 0; idx < count; ++idx) *first.add_messages() = wire.chat().messages(idx);
    std::vector<int32_t> ids;
    if (absl::Status status = ConvertChat(first, model, /*held=*/{}, &ids); !status.ok()) return status;
    const int64_t same = std::mismatch(ids.begin(), ids.end(), prompt.begin(), prompt.end()).first - ids.begin();
    if (same > 0) points->push_back(same);
  }
  std::sort(points->begin(), points->end());
  points->erase(std::unique(points->begin(), points->end()), points->end());
  return absl::OkStatus();
}

// Why a request is not looked up; empty: it is.
std::string WhyNot(const v1::GenerateRequest& wire, const ServedModel& model, const Request& request) {
  if (model.prefix_cache == nullptr) return "this server keeps no prefixes (--no-enable-prefix-caching)";
  if (wire.cache().bypass()) return "the request says so (cache.bypass)";
  if (request.num_prompt_logprobs >= 0) return "prompt_logprobs need every token of the prompt computed";
  return "";
}

}  // namespace

v1::CacheMiss ToProto(MissReason reason) {
  switch (reason) {
    case MissReason::kNone:
      return v1::CACHE_MISS_NONE;
    case MissReason::kNothing:
      return v1::CACHE_MISS_NOTHING;
    case MissReason::kDiverged:
      return v1::CACHE_MISS_DIVERGED;
    case MissReason::kNoSnapshot:
      return v1::CACHE_MISS_NO_SNAPSHOT;
    case MissReason::kEvicted:
      return v1::CACHE_MISS_EVICTED;
    case MissReason::kRefused:
      return v1::CACHE_MISS_REFUSED;
    case MissReason::kTier:
      return v1::CACHE_MISS_TIER;
    case MissReason::kBypassed:
      return v1::CACHE_MISS_BYPASSED;
  }
  return v1::CACHE_MISS_NONE;
}

bool PrefixUse::MayBlock(const v1::GenerateRequest& wire, const ServedModel& model, const std::string& principal,
                         const Request& request) {
  return WhyNot(wire, model, request).empty() &&
         model.prefix_cache->IsBelowMemory({.principal = principal, .salt = wire.cache().salt()}, request.prompt);
}

absl::Status PrefixUse::Prepare(const v1::GenerateRequest& wire, const ServedModel& model, const std::string& principal,
                                Request* request) {
  if (absl::Status status = CheckUse(wire, *request); !status.ok()) return status;
  const int64_t prompt_tokens = static_cast<int64_t>(request->prompt.size());
  if (const std::string why_not = WhyNot(wire, model, *request); !why_not.empty()) {
    report_.prompt_tokens = prompt_tokens;
    report_.why_bypassed = why_not;
    if (model.prefix_cache != nullptr) model.prefix_cache->CountBypass();
    return absl::OkStatus();
  }
  std::vector<int64_t> points(wire.cache().points().begin(), wire.cache().points().end());
  if (absl::Status status = AddMessageEnds(wire, model, request->prompt, &points); !status.ok()) return status;
  use_ = model.prefix_cache->Begin(
      {.principal = principal, .salt = wire.cache().salt(), .points = points, .will_go_on = wire.has_chat()}, request);
  report_ = use_->report();
  return absl::OkStatus();
}

void PrefixUse::AddReport(v1::GenerateEvent* event) const {
  if (!event->has_started() && !event->has_done()) return;
  v1::CacheReport* const out =
      event->has_started() ? event->mutable_started()->mutable_cache() : event->mutable_done()->mutable_cache();
  out->set_cached_tokens(report_.cached_tokens);
  out->set_tier(ToProto(report_.tier));
  out->set_miss(ToProto(report_.miss));
  out->set_matched_tokens(report_.matched_tokens);
  out->set_explanation(report_.Explanation());
}

void PrefixUse::Keep(const EventStream& stream, std::span<const int32_t> answer) {
  if (use_ == nullptr) return;
  // What a failed step left behind is no state to go on from.
  const absl::Status status = stream.status();
  if (status.ok() || absl::IsCancelled(status) || absl::IsDeadlineExceeded(status)) use_->Keep(answer);
  use_.reset();
}

void PrefixUse::AddFields(Log::Fields* fields) const {
  if (report_.prompt_tokens == 0) return;
  fields->emplace_back("cache_miss", std::string(MissReasonName(report_.miss)));
  if (report_.miss == MissReason::kBypassed) return;
  fields->emplace_back("cache_tier", std::string(TierName(report_.tier)));
  fields->emplace_back("matched_tokens", report_.matched_tokens);
}

}  // namespace statehouse
