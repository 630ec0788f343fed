// The flags of `serve` about sessions. Thread-safety: one thread, at start.
#pragma once

#include "server/hosted_sessions.h"

namespace CLI {
class App;
}

namespace statehouse {

// `settings` must outlive parsing.
void AddSessionFlags(CLI::App& command, SessionSettings* settings);

}  // namespace statehouse
