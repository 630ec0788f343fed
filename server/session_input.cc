#include "server/session_input.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/errors.h"
#include "server/convert_prompt.h"

namespace statehouse {
namespace {

constexpr size_t kMaxKeyBytes = 128;

}  // namespace

absl::Status CheckSessionUse(const v1::GenerateRequest& request) {
  const v1::SessionUse& use = request.session();
  if (use.session().empty()) return InvalidField("session.session", "an empty string", "a session's id or name");
  if (use.idempotency_key().size() > kMaxKeyBytes) {
    return InvalidField("session.idempotency_key", absl::StrCat("a key of ", use.idempotency_key().size(), " bytes"),
                        absl::StrCat("at most ", kMaxKeyBytes));
  }
  if (use.has_resume_from() && use.idempotency_key().empty()) {
    return InvalidField("session.resume_from", absl::StrCat(use.resume_from(), " without a key"),
                        "the idempotency_key of the stream that broke off beside it");
  }
  if (use.resume_from() < 0) {
    return InvalidField("session.resume_from", absl::StrCat(use.resume_from()), "a position of at least 0");
  }
  if (use.on_failure() != v1::ON_FAILURE_DISCARD && use.on_failure() != v1::ON_FAILURE_KEEP_DELIVERED) {
    return InvalidField("session.on_failure", absl::StrCat(static_cast<int>(use.on_failure())),
                        "ON_FAILURE_DISCARD or ON_FAILURE_KEEP_DELIVERED");
  }
  if (request.has_n() && request.n() != 1) {
    return InvalidField("n", absl::StrCat(request.n(), " with a session"), "1: a session has one continuation");
  }
  if (!request.cache().points().empty() || !request.cache().after_messages().empty()) {
    return InvalidField("cache", "points to keep with a session", "none: a session keeps checkpoints of its own");
  }
  if (request.has_suffix()) return InvalidField("suffix", "a suffix with a session", "none");
  if (request.has_prompt_logprobs()) {
    return InvalidField("prompt_logprobs", absl::StrCat(request.prompt_logprobs(), " with a session"),
                        "none: a session's tokens are not computed again");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> SessionInput(const v1::GenerateRequest& request, const ServedModel& model,
                                                  std::span<const int32_t> held) {
  std::vector<int32_t> ids;
  if (request.input_case() == v1::GenerateRequest::INPUT_NOT_SET) {
    if (!held.empty()) return ids;
    return InvalidField("input", "nothing for a session that is empty", "text, token_ids or chat");
  }
  absl::Status status = ConvertContinuation(request, model, held, &ids);
  if (!status.ok()) return status;
  return ids;
}

std::string RequestDigest(const v1::GenerateRequest& request) {
  v1::GenerateRequest asked;
  if (request.has_text()) asked.set_text(request.text());
  if (request.has_token_ids()) *asked.mutable_token_ids() = request.token_ids();
  if (request.has_chat()) *asked.mutable_chat() = request.chat();
  asked.set_parse_special_tokens(request.parse_special_tokens());
  if (request.has_add_special_tokens()) asked.set_add_special_tokens(request.add_special_tokens());
  *asked.mutable_sampling() = request.sampling();
  *asked.mutable_stop() = request.stop();
  asked.set_show_special_tokens(request.show_special_tokens());
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream out(&stream);
    out.SetSerializationDeterministic(true);  // a map has no order
    asked.SerializeToCodedStream(&out);
  }
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return absl::StrFormat("%016x%016x", hash.high64, hash.low64);
}

}  // namespace statehouse
