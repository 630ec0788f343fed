// The figures of server and engine in Prometheus' text format (version 0.0.4).
//
// Names and meanings are vLLM's ("vllm:…", labels model_name and engine) where they are the same, so that existing
// dashboards and routers work; our own start with "statehouse_". docs/server.md lists them. Thread-safety: functions
// without state.
#pragma once

#include <string>

#include "server/metrics.h"
#include "server/served_model.h"

namespace statehouse {

// `model` may be null while it loads: then only the server's own figures come.
std::string MetricsText(const ServerMetrics& metrics, const ServedModel* model);

}  // namespace statehouse
