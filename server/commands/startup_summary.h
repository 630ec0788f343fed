// What `serve` says once it is ready. Thread-safety: functions without state.
#pragma once

#include <string>

#include "server/commands/serve.h"
#include "server/hosted_model.h"
#include "server/log.h"
#include "server/server.h"

namespace statehouse {

// A few readable lines, or one JSON object with --log-format json: model, capacity, memory by purpose, addresses.
void PrintStartupSummary(const HostedModel& model, const Server& server, const ServeOptions& options, Log* log);

}  // namespace statehouse
