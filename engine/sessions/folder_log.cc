#include "engine/sessions/folder_log.h"

#include <cstdio>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/sessions/byte_coding.h"

namespace statehouse {
namespace {

constexpr int kMaxTries = 16;
constexpr size_t kDigits = 12;

std::string Padded(int64_t number) {
  std::string text = absl::StrCat(number);
  return text.size() < kDigits ? std::string(kDigits - text.size(), '0') + text : text;
}
std::string GenerationPath(const std::string& session, int64_t generation) {
  return absl::StrCat(session, "/g", Padded(generation));
}
std::string SlotPath(const std::string& session, int64_t generation, int64_t slot) {
  return absl::StrCat(GenerationPath(session, generation), "/", Padded(slot));
}

std::string LastGeneration(const std::vector<std::string>& sorted_names) {
  std::string last;
  for (const std::string& name : sorted_names) {
    if (name.starts_with('g')) last = name;
  }
  return last;
}

std::string Encoded(const LogEntry& entry) {
  ByteWriter writer;
  writer.Number(static_cast<uint64_t>(entry.kind));
  writer.Signed(entry.number);
  writer.Signed(entry.fence);
  writer.Text(entry.owner);
  writer.Interval(entry.ttl);
  writer.Text(entry.record);
  return writer.Take();
}

absl::StatusOr<LogEntry> Decoded(const std::string& path, const std::string& bytes) {
  ByteReader reader(bytes);
  LogEntry entry;
  const uint64_t kind = reader.Number();
  entry.number = reader.Signed();
  entry.fence = reader.Signed();
  entry.owner = reader.Text();
  entry.ttl = reader.Interval();
  entry.record = reader.Text();
  if (!reader.finished() || kind < 1 || kind > static_cast<uint64_t>(LogEntry::Kind::kSeal)) {
    return absl::DataLossError(absl::StrCat(path, " is no entry of a session's log"));
  }
  entry.kind = static_cast<LogEntry::Kind>(kind);
  return entry;
}

void Apply(const LogEntry& entry, LogState* state) {
  ++state->last_slot;
  switch (entry.kind) {
    case LogEntry::Kind::kRecord:
      state->last = entry.number;
      return;
    case LogEntry::Kind::kBase:
      state->first = state->last = entry.number;
      break;
    case LogEntry::Kind::kSeal:
      state->sealed = true;
      state->seal = entry.record;
      return;
    case LogEntry::Kind::kLease:
    case LogEntry::Kind::kRelease:
    case LogEntry::Kind::kBreak:
      break;
  }
  state->fence = entry.fence;
  state->owner = entry.owner;
  state->ttl = entry.ttl;
  state->lease_slot = state->last_slot;
}

}  // namespace

absl::Status FolderLog::Create(const std::string& session) { return folder_->MakeFolder(GenerationPath(session, 1)); }

absl::StatusOr<LogState> FolderLog::Load(const std::string& session, std::vector<std::string>* records) {
  for (int attempt = 0; attempt < kMaxTries; ++attempt) {
    auto state = LoadOnce(session, records);
    // A generation went away while it was read, or is to be followed by the next.
    if (absl::IsNotFound(state.status()) && folder_->Exists(session)) continue;
    if (!state.ok() || !state->sealed) return state;
    if (absl::Status status = Promote(session, *state); !status.ok()) return status;
  }
  return absl::AbortedError(absl::StrCat(session, " changes faster than it can be read"));
}

absl::StatusOr<LogState> FolderLog::LoadOnce(const std::string& session, std::vector<std::string>* records) {
  auto names = folder_->List(session);
  if (!names.ok()) return names.status();
  LogState state;
  state.generation = 0;
  for (const std::string& name : *names) {
    int64_t generation = 0;
    if (!name.starts_with('g') || !absl::SimpleAtoi(name.substr(1), &generation)) continue;
    // Names ascend. One with another after it is sealed; whoever sealed it did not come to remove it.
    if (state.generation > 0) folder_->Remove(GenerationPath(session, state.generation)).IgnoreError();
    state.generation = generation;
  }
  if (state.generation == 0) return absl::NotFoundError(absl::StrCat(session, " has no log"));
  if (records != nullptr) records->clear();
  if (absl::Status status = ReadOn(session, &state, records); !status.ok()) return status;
  // An empty one that has gone looks like one that begins.
  if (!folder_->Exists(GenerationPath(session, state.generation))) return absl::NotFoundError(session);
  return state;
}

absl::Status FolderLog::ReadOn(const std::string& session, LogState* state, std::vector<std::string>* records) {
  while (!state->sealed) {
    const std::string path = SlotPath(session, state->generation, state->last_slot + 1);
    const auto bytes = folder_->Read(path);
    if (absl::IsNotFound(bytes.status())) return absl::OkStatus();
    if (!bytes.ok()) return bytes.status();
    auto entry = Decoded(path, *bytes);
    if (!entry.ok()) return entry.status();
    Apply(*entry, state);
    if (records == nullptr) continue;
    if (entry->kind == LogEntry::Kind::kBase) records->clear();
    if (entry->kind == LogEntry::Kind::kBase || entry->kind == LogEntry::Kind::kRecord) {
      records->push_back(std::move(entry->record));
    }
  }
  return absl::OkStatus();
}

absl::Status FolderLog::CatchUp(const std::string& session, LogState* state) {
  if (state->last_slot > 0 && !state->sealed) {
    if (absl::Status status = ReadOn(session, state, nullptr); !status.ok()) return status;
    if (!state->sealed && folder_->Exists(GenerationPath(session, state->generation))) return absl::OkStatus();
  }
  auto loaded = Load(session, nullptr);
  if (!loaded.ok()) return loaded.status();
  *state = *std::move(loaded);
  return absl::OkStatus();
}

absl::Status FolderLog::Put(const std::string& session, const LogEntry& entry, LogState* state,
                            const std::function<absl::Status(absl::Time now)>& may) {
  const std::string path = SlotPath(session, state->generation, state->last_slot + 1);
  if (absl::Status status = folder_->PutNew(path, Encoded(entry), may); !status.ok()) return status;
  // If a later generation is there, this one may have been made again by a server that had slept: what was put into it
  // counts or not.
  const auto names = folder_->List(session);
  const std::string here = absl::StrCat("g", Padded(state->generation));
  if (entry.kind != LogEntry::Kind::kSeal && (!names.ok() || names->empty() || LastGeneration(*names) != here)) {
    return absl::UnavailableError(absl::StrCat(session, " was compacted or removed meanwhile; read it again"));
  }
  Apply(entry, state);
  return absl::OkStatus();
}

absl::Status FolderLog::Promote(const std::string& session, const LogState& sealed) {
  LogEntry base{.kind = LogEntry::Kind::kBase,
                .number = sealed.last,
                .fence = sealed.fence,
                .owner = sealed.owner,
                .ttl = sealed.ttl,
                .record = sealed.seal};
  absl::Status made = folder_->PutNewFolder(GenerationPath(session, sealed.generation + 1), Padded(1), Encoded(base));
  if (!made.ok() && !absl::IsAlreadyExists(made)) return made;
  return folder_->Remove(GenerationPath(session, sealed.generation));
}

absl::StatusOr<absl::Time> FolderLog::LeaseEnd(const std::string& session, const LogState& state) {
  if (state.owner.empty()) return absl::InfinitePast();
  const auto begun = folder_->ModifiedAt(SlotPath(session, state.generation, state.lease_slot));
  if (!begun.ok()) return begun.status();
  return *begun + state.ttl;
}

absl::Status FolderLog::TouchLease(const std::string& session, const LogState& state) {
  return folder_->Touch(SlotPath(session, state.generation, state.lease_slot));
}

}  // namespace statehouse
