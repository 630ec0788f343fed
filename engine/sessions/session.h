// What records do to a session's content, and what can be asked of it. Nothing here computes, stores or locks.
// Thread-safety: free functions on plain data.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "engine/sessions/session_record.h"
#include "engine/state/snapshot.h"

namespace statehouse {

// Of a snapshot that is to be kept, under a new key.
Checkpoint NewCheckpoint(const Snapshot& snapshot);

// DATA_LOSS if the record does not fit what stands before it; the content is then as it was.
absl::Status Replay(SessionRecord record, SessionContent* content);

// The checkpoints from which the first `position` tokens can be gone on with, deepest first; at `position` itself only
// one that has logits, if those are needed.
std::vector<Checkpoint> UsableAt(const SessionContent& content, int64_t position, bool needs_logits);

// What is left of `checkpoints` in a session of the first `position` tokens: those at or before it, and the next one if
// it can be taken back to there exactly.
std::vector<Checkpoint> CutTo(std::span<const Checkpoint> checkpoints, int64_t position);

// The content of a session of the first `position` tokens. A turn that ends beyond loses its end and its key.
SessionContent CutTo(const SessionContent& content, int64_t position);

// `checkpoints` and `more`, of which stay the deepest and, for each k, the newest at or before its position −
// chunk·4^k; at most `max` in all. Of two at one position that of `more` stays, unless only the other has logits.
std::vector<Checkpoint> Merge(std::span<const Checkpoint> checkpoints, std::span<const Checkpoint> more, int64_t chunk,
                              int64_t max);

// Positions in (from, prompt_size) at which a prompt's snapshots bound what going back costs: prompt_size − chunk·4^k
// for k = 1, 2, …; at most `max`, ascending.
std::vector<int64_t> SpacedPositions(int64_t from, int64_t prompt_size, int64_t chunk, int64_t max);

// The turn that was committed under the key; null: none.
const KeptTurn* FindTurn(const SessionContent& content, std::string_view key);
std::vector<TurnSpan> SpansOf(const SessionContent& content);
// Those that another session may refer to.
std::vector<Checkpoint> SharedOf(std::span<const Checkpoint> checkpoints);
// Keys of `before` that are not in `after`.
std::vector<Checkpoint> Dropped(std::span<const Checkpoint> before, std::span<const Checkpoint> after);

}  // namespace statehouse
