// What callers see of sessions: plain data that goes in and out of the SessionStore. Positions count tokens from the
// start of the session. Thread-safety: plain data.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "engine/sessions/session_archive.h"
#include "engine/state/snapshot_vault.h"  // Tier

namespace statehouse {

using Labels = std::map<std::string, std::string>;

enum class Durability : uint8_t {
  kDefault,  // the server's choice
  kMemory,   // as long as the process lives
  kAsync,    // written behind: a crash costs at most the turns of the last SessionStoreOptions::async_lag
  kSync,     // a turn that was acknowledged survives any crash
};
const char* DurabilityName(Durability durability);  // "default", "memory", "async", "sync"

struct SessionSpec {
  std::string principal;
  std::string name;  // unique per principal; 0 … 128 bytes, not 32 hexadecimal digits; empty: only the id names it
  Labels labels;     // at most 64; keys of 1 … 256 bytes, values of at most as many
  absl::Duration ttl = absl::InfiniteDuration();  // > 0; without a turn for that long it is deleted, unless pinned
  bool pinned = false;
  Durability durability = Durability::kDefault;
  bool shared = false;  // other principals who know the id may read and fork it
};

// What to change; what is absent stays.
struct SessionChange {
  std::optional<std::string> name;
  std::optional<Labels> labels;
  std::optional<absl::Duration> ttl;
  std::optional<bool> pinned;
  std::optional<Durability> durability;
  std::optional<bool> shared;
};

struct SessionCheckpoint {
  int64_t position = 0;
  int64_t bytes = 0;
  Tier tier = Tier::kNone;  // the nearest that holds it; kNone: it was lost, and costs a replay
};

struct SessionInfo {
  std::string id;  // 32 hexadecimal digits, random
  SessionSpec spec;
  int64_t num_tokens = 0;
  int64_t turns = 0;
  std::vector<SessionCheckpoint> checkpoints;  // ascending positions
  int64_t snapshot_bytes = 0;
  absl::Time created;
  absl::Time last_turn;  // or creation
  bool busy = false;     // a turn is under way here
  SessionLease lease;    // in an archive that servers share
  std::string damage;    // not empty: it cannot be used, and why; what stands above is what was last known
};

// A turn's tokens: input [input_begin, answer_begin), answer [answer_begin, end).
struct TurnSpan {
  int64_t input_begin = 0;
  int64_t answer_begin = 0;
  int64_t end = 0;
  uint64_t seed = 0;
};

struct SessionTranscript {
  std::vector<int32_t> tokens;  // of [from, from + tokens.size())
  std::vector<TurnSpan> turns;  // those that reach into it
  int64_t num_tokens = 0;       // of the whole session
};

// A session without its name: what is exported, and what an import begins with.
struct SessionImage {
  SessionSpec spec;
  std::vector<int32_t> tokens;
  std::vector<TurnSpan> turns;
  std::shared_ptr<const Snapshot> snapshot;  // the deepest; null: none
  Exactness exactness = Exactness::kExact;   // of the snapshot here
  std::string numeric_difference;
};

struct SessionTotals {
  int64_t open = 0;                 // sessions in memory
  int64_t busy = 0;                 // turns under way here
  int64_t damaged = 0;              // sessions found damaged so far
  int64_t upkeep_failures = 0;      // of what goes on beside turns: writing behind, leases, summaries, ends of lives
  std::string last_upkeep_failure;  // "writing behind: …"; empty: none yet
};

struct SessionPage {
  std::vector<SessionInfo> sessions;
  std::string next;  // where the next page begins; empty: that was the last
};

// What a finished turn appended beyond its input, and how it ended.
struct TurnOutcome {
  std::vector<int32_t> tokens;  // generated ids, and the one that ended the answer
  uint64_t seed = 0;
  std::string detail;           // opaque here, at most 4 KiB: how it ended, as its caller words it
  int64_t position_before = 0;  // where the input begins; set by Commit(), as are the two below
  int64_t answer_begin = 0;
  int64_t num_tokens = 0;  // of the session after it
};

struct RewindCost {
  int64_t position = 0;
  int64_t snapshot_position = 0;  // 0: none, all is computed again
  int64_t tokens_to_compute = 0;  // by the next turn, beside its own input
};

struct SessionDamage {
  std::string session;  // id
  std::string part;     // "journal", "snapshot"
  int64_t position = 0;
  Tier tier = Tier::kNone;
  std::string what;  // what is wrong, and what it costs
};

struct SessionReport {
  int64_t sessions = 0;
  int64_t snapshots = 0;
  int64_t bytes = 0;
  std::vector<SessionDamage> damages;
};

struct GarbageReport {
  int64_t expired_sessions = 0;
  SnapshotVault::Removed removed;
  SnapshotVault::Removed too_young;  // would have been, but may be about to be named by a record
};

}  // namespace statehouse
