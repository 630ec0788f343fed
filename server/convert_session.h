// Sessions between the wire and the store. Thread-safety: functions without state.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/sessions/session_info.h"
#include "statehouse/v1/sessions.pb.h"

namespace statehouse {

v1::CacheTier ToProto(Tier tier);
v1::Exactness ToProto(Exactness exactness);
v1::Durability ToProto(Durability durability);
void ToProto(const SessionInfo& info, v1::Session* out);
void ToProto(const SnapshotVault::Removed& removed, google::protobuf::RepeatedPtrField<v1::TierCount>* out);

// `field` leads the names in errors: "" or "as.".
absl::StatusOr<SessionSpec> ToSpec(std::string_view field, const v1::CreateSessionRequest& request,
                                   const std::string& principal);
absl::StatusOr<SessionChange> ToChange(const v1::UpdateSessionRequest& request);

}  // namespace statehouse
