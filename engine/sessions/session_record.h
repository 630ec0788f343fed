// What a session's records and its entry say, and their bytes. A session is its entry (SessionMeta) and the content
// that its records, replayed in order, add up to (session.h).
//
// Bytes: format (1), kind, then the fields in the order of the structs, as byte_coding.h puts them. The parsers are
// strict: every byte is used, every range checked; what does not fit is DATA_LOSS. Thread-safety: free functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/sessions/session_info.h"

namespace statehouse {

// A snapshot that the session can go on from.
struct Checkpoint {
  int64_t position = 0;      // 1 … the session's
  std::string key;           // in the vault
  int64_t key_position = 0;  // of the snapshot under the key: >= position; it is taken back if greater
  int64_t exact_from = 0;    // Snapshot::exact_from(): <= position
  int64_t bytes = 0;
  bool has_logits = false;
  bool shared = false;  // a fork may refer to the same key
};

// A turn that began: what it takes to compute its answer again.
struct TurnBegun {
  std::string key;  // idempotency key; never empty
  uint64_t seed = 0;
  std::string sampling;  // opaque
  std::string digest;    // opaque; empty: none
  std::vector<int32_t> input;
  absl::Time at;
};

// A turn that is part of the session.
struct KeptTurn {
  int64_t input_begin = 0;
  int64_t answer_begin = 0;
  int64_t end = 0;
  uint64_t seed = 0;
  std::string key;  // empty: none, or no longer kept
  std::string digest;
  std::string detail;  // opaque
  absl::Time at;
};

// All of a session but its entry; also the record that replaces all before it.
struct SessionContent {
  std::vector<int32_t> tokens;
  std::vector<KeptTurn> turns;          // in order, apart
  std::vector<Checkpoint> checkpoints;  // ascending positions, distinct
  std::optional<TurnBegun> begun;       // and not committed since

  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()); }
  int64_t snapshot_bytes() const;
};

// In these three, `checkpoints` are all that there are afterwards.
struct TurnCommitted {
  bool as_begun = false;       // the input is that of the last TurnBegun
  std::vector<int32_t> input;  // empty if as_begun
  std::vector<int32_t> answer;
  KeptTurn turn;  // its positions are those of the tokens that it appends
  std::vector<Checkpoint> checkpoints;
};
struct Rewound {
  int64_t position = 0;
  std::vector<Checkpoint> checkpoints;
};
struct CheckpointsChanged {
  std::vector<Checkpoint> checkpoints;
};

using SessionRecord = std::variant<SessionContent, TurnBegun, TurnCommitted, Rewound, CheckpointsChanged>;

std::string EncodeRecord(const SessionRecord& record);
absl::StatusOr<SessionRecord> ParseRecord(std::string_view bytes);

// SessionEntry::meta: the spec beside principal and name, and what can be known of a session without its records.
struct SessionMeta {
  Labels labels;
  absl::Duration ttl = absl::InfiniteDuration();
  bool pinned = false;
  Durability durability = Durability::kSync;
  bool shared = false;
  absl::Time created;
  std::string family;     // id of the session that this one descends from by forks; its own if it is none
  bool has_base = false;  // it began with a record of content: without any record it never came to be
  int64_t forked_at = 0;  // number of the last record when it was forked last; 0: never, or while it had none
  // A summary that trails behind the records: each is a lower bound of what they say, but for the bytes.
  int64_t num_records = 0;  // the number of the last one that is known to survive a crash
  int64_t num_tokens = 0;
  int64_t turns = 0;
  int64_t snapshot_bytes = 0;
  absl::Time last_turn;
};

std::string EncodeMeta(const SessionMeta& meta);
absl::StatusOr<SessionMeta> ParseMeta(std::string_view bytes);

}  // namespace statehouse
