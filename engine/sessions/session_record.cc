#include "engine/sessions/session_record.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/sessions/byte_coding.h"

namespace statehouse {
namespace {

constexpr uint64_t kFormat = 1;
constexpr size_t kKeyBytes = 32;

void Write(const Checkpoint& checkpoint, ByteWriter* to) {
  to->Number(static_cast<uint64_t>(checkpoint.position));
  to->Text(checkpoint.key);
  to->Number(static_cast<uint64_t>(checkpoint.key_position));
  to->Number(static_cast<uint64_t>(checkpoint.exact_from));
  to->Number(static_cast<uint64_t>(checkpoint.bytes));
  to->Flag(checkpoint.has_logits);
  to->Flag(checkpoint.shared);
}

Checkpoint ReadCheckpoint(ByteReader* from) {
  Checkpoint checkpoint;
  checkpoint.position = from->Count();
  checkpoint.key = from->Text();
  checkpoint.key_position = from->Count();
  checkpoint.exact_from = from->Count();
  checkpoint.bytes = from->Count();
  checkpoint.has_logits = from->Flag();
  checkpoint.shared = from->Flag();
  if (checkpoint.key.size() != kKeyBytes || checkpoint.position < 1 || checkpoint.key_position < checkpoint.position ||
      checkpoint.exact_from > checkpoint.position) {
    from->Fail();
  }
  return checkpoint;
}

void Write(const std::vector<Checkpoint>& checkpoints, ByteWriter* to) {
  to->Number(checkpoints.size());
  for (const Checkpoint& checkpoint : checkpoints) Write(checkpoint, to);
}

std::vector<Checkpoint> ReadCheckpoints(ByteReader* from) {
  std::vector<Checkpoint> checkpoints;
  for (int64_t left = from->Length(kKeyBytes + 7); left > 0; --left) {
    checkpoints.push_back(ReadCheckpoint(from));
    const size_t count = checkpoints.size();
    if (count > 1 && checkpoints[count - 2].position >= checkpoints[count - 1].position) from->Fail();
  }
  return checkpoints;
}

void Write(const TurnBegun& begun, ByteWriter* to) {
  to->Text(begun.key);
  to->Number(begun.seed);
  to->Text(begun.sampling);
  to->Text(begun.digest);
  to->Tokens(begun.input);
  to->Time(begun.at);
}

TurnBegun ReadBegun(ByteReader* from) {
  TurnBegun begun;
  begun.key = from->Text();
  begun.seed = from->Number();
  begun.sampling = from->Text();
  begun.digest = from->Text();
  begun.input = from->Tokens();
  begun.at = from->Time();
  if (begun.key.empty()) from->Fail();
  return begun;
}

void Write(const KeptTurn& turn, ByteWriter* to) {
  to->Number(static_cast<uint64_t>(turn.input_begin));
  to->Number(static_cast<uint64_t>(turn.answer_begin));
  to->Number(static_cast<uint64_t>(turn.end));
  to->Number(turn.seed);
  to->Text(turn.key);
  to->Text(turn.digest);
  to->Text(turn.detail);
  to->Time(turn.at);
}

KeptTurn ReadTurn(ByteReader* from) {
  KeptTurn turn;
  turn.input_begin = from->Count();
  turn.answer_begin = from->Count();
  turn.end = from->Count();
  turn.seed = from->Number();
  turn.key = from->Text();
  turn.digest = from->Text();
  turn.detail = from->Text();
  turn.at = from->Time();
  if (turn.input_begin > turn.answer_begin || turn.answer_begin > turn.end) from->Fail();
  return turn;
}

void Write(const SessionContent& content, ByteWriter* to) {
  to->Tokens(content.tokens);
  to->Number(content.turns.size());
  for (const KeptTurn& turn : content.turns) Write(turn, to);
  Write(content.checkpoints, to);
  to->Flag(content.begun.has_value());
  if (content.begun.has_value()) Write(*content.begun, to);
}

SessionContent ReadContent(ByteReader* from) {
  SessionContent content;
  content.tokens = from->Tokens();
  int64_t end = 0;
  for (int64_t left = from->Length(8); left > 0; --left) {
    content.turns.push_back(ReadTurn(from));
    if (content.turns.back().input_begin < end) from->Fail();
    end = content.turns.back().end;
  }
  content.checkpoints = ReadCheckpoints(from);
  if (from->Flag()) content.begun = ReadBegun(from);
  const int64_t size = content.num_tokens();
  if (end > size || (!content.checkpoints.empty() && content.checkpoints.back().position > size)) from->Fail();
  return content;
}

void Write(const TurnCommitted& committed, ByteWriter* to) {
  to->Flag(committed.as_begun);
  to->Tokens(committed.input);
  to->Tokens(committed.answer);
  Write(committed.turn, to);
  Write(committed.checkpoints, to);
}

TurnCommitted ReadCommitted(ByteReader* from) {
  TurnCommitted committed;
  committed.as_begun = from->Flag();
  committed.input = from->Tokens();
  committed.answer = from->Tokens();
  committed.turn = ReadTurn(from);
  committed.checkpoints = ReadCheckpoints(from);
  if (committed.as_begun && !committed.input.empty()) from->Fail();
  return committed;
}

void Write(const Rewound& rewound, ByteWriter* to) {
  to->Number(static_cast<uint64_t>(rewound.position));
  Write(rewound.checkpoints, to);
}

void Write(const CheckpointsChanged& changed, ByteWriter* to) { Write(changed.checkpoints, to); }

SessionRecord ReadBody(uint64_t kind, ByteReader* from) {
  switch (kind) {
    case 0:
      return ReadContent(from);
    case 1:
      return ReadBegun(from);
    case 2:
      return ReadCommitted(from);
    case 3: {
      Rewound rewound;
      rewound.position = from->Count();
      rewound.checkpoints = ReadCheckpoints(from);
      return rewound;
    }
    case 4:
      return CheckpointsChanged{ReadCheckpoints(from)};
    default:
      from->Fail();
      return CheckpointsChanged{};
  }
}

absl::Status Newer(const char* what, uint64_t format) {
  return absl::FailedPreconditionError(
      absl::StrCat(what, " of format ", format, "; this server reads format ", kFormat, " and no newer"));
}

}  // namespace

int64_t SessionContent::snapshot_bytes() const {
  int64_t bytes = 0;
  for (const Checkpoint& checkpoint : checkpoints) bytes += checkpoint.bytes;
  return bytes;
}

std::string EncodeRecord(const SessionRecord& record) {
  ByteWriter to;
  to.Number(kFormat);
  to.Number(record.index());
  std::visit([&to](const auto& body) { Write(body, &to); }, record);
  return to.Take();
}

absl::StatusOr<SessionRecord> ParseRecord(std::string_view bytes) {
  ByteReader from(bytes);
  const uint64_t format = from.Number();
  if (!from.failed() && format != kFormat) return Newer("a session record", format);
  SessionRecord record = ReadBody(from.Number(), &from);
  if (!from.finished()) return absl::DataLossError("a session record is damaged");
  return record;
}

std::string EncodeMeta(const SessionMeta& meta) {
  ByteWriter to;
  to.Number(kFormat);
  to.Number(meta.labels.size());
  for (const auto& [key, value] : meta.labels) {
    to.Text(key);
    to.Text(value);
  }
  to.Interval(meta.ttl);
  to.Flag(meta.pinned);
  to.Number(static_cast<uint64_t>(meta.durability));
  to.Flag(meta.shared);
  to.Time(meta.created);
  to.Text(meta.family);
  to.Flag(meta.has_base);
  to.Number(static_cast<uint64_t>(meta.forked_at));
  to.Number(static_cast<uint64_t>(meta.num_records));
  to.Number(static_cast<uint64_t>(meta.num_tokens));
  to.Number(static_cast<uint64_t>(meta.turns));
  to.Number(static_cast<uint64_t>(meta.snapshot_bytes));
  to.Time(meta.last_turn);
  return to.Take();
}

absl::StatusOr<SessionMeta> ParseMeta(std::string_view bytes) {
  ByteReader from(bytes);
  const uint64_t format = from.Number();
  if (!from.failed() && format != kFormat) return Newer("a session's entry", format);
  SessionMeta meta;
  for (int64_t left = from.Length(2); left > 0; --left) {
    std::string key = from.Text();
    meta.labels[std::move(key)] = from.Text();
  }
  meta.ttl = from.Interval();
  meta.pinned = from.Flag();
  const uint64_t durability = from.Number();
  if (durability > static_cast<uint64_t>(Durability::kSync)) from.Fail();
  meta.durability = static_cast<Durability>(durability);
  meta.shared = from.Flag();
  meta.created = from.Time();
  meta.family = from.Text();
  meta.has_base = from.Flag();
  meta.forked_at = from.Count();
  meta.num_records = from.Count();
  meta.num_tokens = from.Count();
  meta.turns = from.Count();
  meta.snapshot_bytes = from.Count();
  meta.last_turn = from.Time();
  if (!from.finished()) return absl::DataLossError("a session's entry is damaged");
  return meta;
}

}  // namespace statehouse
