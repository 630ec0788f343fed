// The streams of the Sessions service: export in parts, import of parts. Thread-safety: functions without state; they
// block, on a thread of the transfer queue.
#pragma once

#include "absl/status/status.h"
#include "server/blocking_call.h"
#include "server/served_model.h"
#include "statehouse/v1/sessions.pb.h"

namespace statehouse {

absl::Status ExportSession(const ServedModel& model, const CallInfo& info, const v1::ExportSessionRequest& request,
                           WritingCall<v1::ExportSessionPart>* call);

absl::Status ImportSession(const ServedModel& model, const CallInfo& info, ImportTable* imports,
                           ReadingCall<v1::ImportSessionPart>* call, v1::ImportSessionResponse* response);

// INVALID_ARGUMENT: not 1 … 128 bytes.
absl::Status CheckImportId(const std::string& id);

}  // namespace statehouse
