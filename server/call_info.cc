#include "server/call_info.h"

#include <algorithm>
#include <random>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/errors.h"

namespace statehouse {
namespace {

constexpr char kRequestIdKey[] = "x-request-id";

std::string_view Find(const grpc::CallbackServerContext& context, const char* key) {
  const auto it = context.client_metadata().find(key);
  if (it == context.client_metadata().end()) return {};
  return std::string_view(it->second.data(), it->second.size());
}

std::string NewRequestId() {
  thread_local std::mt19937_64 generator{std::random_device{}()};
  return absl::StrFormat("req-%016x", generator());
}

// The first name of a verified client certificate, or "".
std::string PeerName(const grpc::CallbackServerContext& context) {
  const auto auth_context = context.auth_context();
  if (auth_context == nullptr || !auth_context->IsPeerAuthenticated()) return "";
  const auto names = auth_context->GetPeerIdentity();
  return names.empty() ? "" : std::string(names.front().data(), names.front().size());
}

}  // namespace

absl::Status ReadCallInfo(grpc::CallbackServerContext* context, const Authenticator& auth, CallInfo* info) {
  const std::string_view id = Find(*context, kRequestIdKey);
  const bool valid = !id.empty() && id.size() <= kMaxRequestIdBytes &&
                     std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c <= '~'; });
  info->request_id = valid ? std::string(id) : NewRequestId();
  context->AddInitialMetadata(kRequestIdKey, info->request_id);

  // gRPC reports "no deadline" as a time far away.
  const absl::Time deadline = absl::FromChrono(context->deadline());
  if (deadline < absl::Now() + absl::Hours(24 * 365)) info->deadline = deadline;

  if (auth.required()) {
    absl::StatusOr<std::string> principal = auth.Check(Find(*context, "authorization"));
    if (!principal.ok()) return principal.status();
    info->principal = *std::move(principal);
  } else {
    info->principal = PeerName(*context);
  }
  if (context->client_metadata().count(kRequestIdKey) > 0 && !valid) {
    return InvalidField(kRequestIdKey, absl::StrCat("a value of ", id.size(), " bytes"),
                        absl::StrCat("1 to ", kMaxRequestIdBytes, " printable ASCII characters without spaces"));
  }
  return absl::OkStatus();
}

}  // namespace statehouse
