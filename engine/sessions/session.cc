#include "engine/sessions/session.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"

namespace statehouse {
namespace {

absl::Status Misfit(const char* what) {
  return absl::DataLossError(absl::StrCat("a record does not fit those before it: ", what));
}

bool Within(const std::vector<Checkpoint>& checkpoints, int64_t num_tokens) {
  return checkpoints.empty() || checkpoints.back().position <= num_tokens;
}

absl::Status ReplayOne(SessionContent&& whole, SessionContent* content) {
  *content = std::move(whole);
  return absl::OkStatus();
}

absl::Status ReplayOne(TurnBegun&& begun, SessionContent* content) {
  content->begun = std::move(begun);
  return absl::OkStatus();
}

absl::Status ReplayOne(TurnCommitted&& committed, SessionContent* content) {
  if (committed.as_begun && !content->begun.has_value()) return Misfit("a turn that never began");
  const std::vector<int32_t>& input = committed.as_begun ? content->begun->input : committed.input;
  const KeptTurn& turn = committed.turn;
  const int64_t answer_begin = content->num_tokens() + static_cast<int64_t>(input.size());
  const int64_t end = answer_begin + static_cast<int64_t>(committed.answer.size());
  if (turn.input_begin != content->num_tokens() || turn.answer_begin != answer_begin || turn.end != end) {
    return Misfit("a turn at another position");
  }
  if (!Within(committed.checkpoints, end)) return Misfit("a snapshot beyond the end");
  content->tokens.insert(content->tokens.end(), input.begin(), input.end());
  content->tokens.insert(content->tokens.end(), committed.answer.begin(), committed.answer.end());
  content->turns.push_back(std::move(committed.turn));
  content->checkpoints = std::move(committed.checkpoints);
  content->begun.reset();
  return absl::OkStatus();
}

absl::Status ReplayOne(Rewound&& rewound, SessionContent* content) {
  if (rewound.position > content->num_tokens()) return Misfit("going back to beyond the end");
  if (!Within(rewound.checkpoints, rewound.position)) return Misfit("a snapshot beyond the end");
  *content = CutTo(*content, rewound.position);
  content->checkpoints = std::move(rewound.checkpoints);
  return absl::OkStatus();
}

absl::Status ReplayOne(CheckpointsChanged&& changed, SessionContent* content) {
  if (!Within(changed.checkpoints, content->num_tokens())) return Misfit("a snapshot beyond the end");
  content->checkpoints = std::move(changed.checkpoints);
  return absl::OkStatus();
}

}  // namespace

Checkpoint NewCheckpoint(const Snapshot& snapshot) {
  return {.position = snapshot.position(),
          .key = SnapshotVault::NewKey(),
          .key_position = snapshot.position(),
          .exact_from = snapshot.exact_from(),
          .bytes = snapshot.bytes(),
          .has_logits = !snapshot.logits().empty()};
}

absl::Status Replay(SessionRecord record, SessionContent* content) {
  return std::visit([content](auto& body) { return ReplayOne(std::move(body), content); }, record);
}

std::vector<Checkpoint> UsableAt(const SessionContent& content, int64_t position, bool needs_logits) {
  std::vector<Checkpoint> usable;
  for (auto checkpoint = content.checkpoints.rbegin(); checkpoint != content.checkpoints.rend(); ++checkpoint) {
    const bool has_all = checkpoint->has_logits || !needs_logits;
    if (checkpoint->position < position || (checkpoint->position == position && has_all)) usable.push_back(*checkpoint);
  }
  return usable;
}

std::vector<Checkpoint> CutTo(std::span<const Checkpoint> checkpoints, int64_t position) {
  std::vector<Checkpoint> kept;
  for (const Checkpoint& checkpoint : checkpoints) {
    if (checkpoint.position <= position) {
      kept.push_back(checkpoint);
      continue;
    }
    const bool is_there = !kept.empty() && kept.back().position == position;
    if (position >= 1 && position >= checkpoint.exact_from && !is_there) {
      kept.push_back(checkpoint);
      kept.back().position = position;
      kept.back().has_logits = false;
    }
    break;
  }
  return kept;
}

SessionContent CutTo(const SessionContent& content, int64_t position) {
  SessionContent cut;
  cut.tokens.assign(content.tokens.begin(), content.tokens.begin() + position);
  for (const KeptTurn& turn : content.turns) {
    if (turn.input_begin >= position) break;
    cut.turns.push_back(turn);
    if (turn.end <= position) continue;
    // What a retry would repeat is no longer there.
    cut.turns.back().key.clear();
    cut.turns.back().end = position;
    cut.turns.back().answer_begin = std::min(turn.answer_begin, position);
  }
  cut.checkpoints = CutTo(content.checkpoints, position);
  return cut;
}

std::vector<Checkpoint> Merge(std::span<const Checkpoint> checkpoints, std::span<const Checkpoint> more, int64_t chunk,
                              int64_t max) {
  std::vector<Checkpoint> all(checkpoints.begin(), checkpoints.end());
  all.insert(all.end(), more.begin(), more.end());
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.position < b.position; });
  std::vector<Checkpoint> distinct;
  for (const Checkpoint& checkpoint : all) {
    if (distinct.empty() || distinct.back().position != checkpoint.position) {
      distinct.push_back(checkpoint);
    } else if (checkpoint.has_logits || !distinct.back().has_logits) {
      distinct.back() = checkpoint;
    }
  }
  if (static_cast<int64_t>(distinct.size()) <= max) return distinct;
  const int64_t head = distinct.back().position;
  std::vector<Checkpoint> kept = {distinct.back()};
  for (int64_t distance = chunk; static_cast<int64_t>(kept.size()) < max && distance < head; distance *= 4) {
    const auto beyond =
        std::find_if(distinct.begin(), distinct.end(),
                     [limit = head - distance](const auto& checkpoint) { return checkpoint.position > limit; });
    if (beyond == distinct.begin()) break;
    if (kept.back().position != (beyond - 1)->position) kept.push_back(*(beyond - 1));
  }
  std::reverse(kept.begin(), kept.end());
  return kept;
}

std::vector<int64_t> SpacedPositions(int64_t from, int64_t prompt_size, int64_t chunk, int64_t max) {
  std::vector<int64_t> positions;
  for (int64_t distance = chunk * 4; distance < prompt_size - from; distance *= 4) {
    if (static_cast<int64_t>(positions.size()) >= max) break;
    positions.push_back(prompt_size - distance);
  }
  std::reverse(positions.begin(), positions.end());
  return positions;
}

const KeptTurn* FindTurn(const SessionContent& content, std::string_view key) {
  if (key.empty()) return nullptr;
  const auto turn =
      std::find_if(content.turns.rbegin(), content.turns.rend(), [key](const auto& kept) { return kept.key == key; });
  return turn == content.turns.rend() ? nullptr : &*turn;
}

std::vector<TurnSpan> SpansOf(const SessionContent& content) {
  std::vector<TurnSpan> spans;
  spans.reserve(content.turns.size());
  for (const KeptTurn& turn : content.turns)
    spans.push_back({turn.input_begin, turn.answer_begin, turn.end, turn.seed});
  return spans;
}

std::vector<Checkpoint> SharedOf(std::span<const Checkpoint> checkpoints) {
  std::vector<Checkpoint> shared;
  std::copy_if(checkpoints.begin(), checkpoints.end(), std::back_inserter(shared),
               [](const Checkpoint& checkpoint) { return checkpoint.shared; });
  return shared;
}

std::vector<Checkpoint> Dropped(std::span<const Checkpoint> before, std::span<const Checkpoint> after) {
  std::vector<Checkpoint> dropped;
  for (const Checkpoint& checkpoint : before) {
    const auto is_same = [&checkpoint](const auto& other) { return other.key == checkpoint.key; };
    if (std::none_of(after.begin(), after.end(), is_same) && std::none_of(dropped.begin(), dropped.end(), is_same)) {
      dropped.push_back(checkpoint);
    }
  }
  return dropped;
}

}  // namespace statehouse
