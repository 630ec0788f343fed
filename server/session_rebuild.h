// Computes a session's state anew from its token ids, on the engine that serves now. Thread-safety: functions without
// state; blocks for as long as the prefill takes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "server/call_info.h"
#include "server/served_model.h"

namespace statehouse {

struct RebuildCallbacks {
  // After each piece: tokens done, tokens in all. An error ends the rebuild; the session is then as before.
  std::function<absl::Status(int64_t done, int64_t total)> progress;
  std::function<bool()> cancelled;
};

absl::Status RebuildSession(const ServedModel& model, const CallInfo& info, const std::string& session,
                            const RebuildCallbacks& callbacks);

}  // namespace statehouse
