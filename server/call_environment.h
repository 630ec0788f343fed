// What every call of every service needs. Made once by the server; outlives all calls.
#pragma once

#include <atomic>
#include <cstdint>
#include <set>
#include <string>

#include "server/auth.h"
#include "server/call_table.h"
#include "server/event_pump.h"
#include "server/import_table.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/served_model.h"
#include "server/turn_table.h"
#include "server/work_queue.h"

namespace statehouse {

struct CallEnvironment {
  ModelHandle* model = nullptr;
  Authenticator* auth = nullptr;
  EventPump* pump = nullptr;
  WorkQueue* work = nullptr;
  WorkQueue* session_work = nullptr;  // what waits for a disk or a network
  WorkQueue* settling = nullptr;      // ends of turns: never refused, and not held up by the above
  WorkQueue* transfers = nullptr;     // what lasts: export, import, rebuild, check, garbage
  TurnTable* turns = nullptr;
  ImportTable* imports = nullptr;
  CallTable* calls = nullptr;
  ServerMetrics* metrics = nullptr;
  Log* log = nullptr;
  std::set<std::string> operators;       // --operators: principals that may do what concerns everybody's sessions
  bool log_prompts = false;              // --log-prompts
  int64_t max_message_bytes = 64 << 20;  // --max-message-bytes
  absl::Duration stuck_write_timeout =
      absl::Minutes(1);                // a message that the client's window does not take for so long ends the call
  std::atomic<bool> shut_down{false};  // what still ran has been cancelled, since the server stops
};

}  // namespace statehouse
