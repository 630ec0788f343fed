// Lists of sessions: what their entries say. Records are read only of those whose entries say nothing.
#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "engine/sessions/open_session.h"
#include "engine/sessions/session_store.h"

namespace statehouse {
namespace {

bool HasAll(const Labels& has, const Labels& wanted) {
  return std::all_of(wanted.begin(), wanted.end(), [&has](const auto& label) {
    const auto found = has.find(label.first);
    return found != has.end() && found->second == label.second;
  });
}

SessionInfo OfEntry(const SessionEntry& entry, const SessionMeta& meta) {
  SessionInfo info;
  info.id = entry.id;
  info.spec = {.principal = entry.principal,
               .name = entry.name,
               .labels = meta.labels,
               .ttl = meta.ttl,
               .pinned = meta.pinned,
               .durability = meta.durability,
               .shared = meta.shared};
  info.num_tokens = meta.num_tokens;
  info.turns = meta.turns;
  info.snapshot_bytes = meta.snapshot_bytes;
  info.created = meta.created;
  info.last_turn = std::max(meta.last_turn, meta.created);
  return info;
}

}  // namespace

std::optional<SessionInfo> SessionStore::InfoIfOpen(const SessionEntry& entry, const SessionMeta& meta) {
  std::shared_ptr<OpenSession> session;
  {
    std::lock_guard<std::mutex> lock(mu_);
    if (const auto found = open_.find(entry.id); found != open_.end()) session = found->second;
  }
  if (session == nullptr) return std::nullopt;
  // One that is written to just now is listed as its entry has it, if that says anything.
  std::unique_lock<std::mutex> lock(session->mu, std::try_to_lock);
  if (!lock.owns_lock() || session->is_deleted || !session->is_read) return std::nullopt;
  // Another server may have appended since, or changed what the entry says.
  if (session->archive->is_shared() && session->num_records < meta.num_records) return std::nullopt;
  SessionInfo info = InfoOf(session.get(), /*with_checkpoints=*/false);
  if (session->archive->is_shared()) info.spec = OfEntry(entry, meta).spec;
  return info;
}

absl::StatusOr<std::optional<SessionInfo>> SessionStore::InfoOfEntry(const SessionEntry& entry, const Labels& labels) {
  const auto meta = ParseMeta(entry.meta);
  if (!meta.ok()) {
    if (!absl::IsDataLoss(meta.status()) && !absl::IsFailedPrecondition(meta.status())) return meta.status();
    SessionInfo info;
    info.id = entry.id;
    info.spec.principal = entry.principal;
    info.spec.name = entry.name;
    info.damage = std::string(meta.status().message());
    return info;
  }
  if (!HasAll(meta->labels, labels)) return std::nullopt;
  if (std::optional<SessionInfo> info = InfoIfOpen(entry, *meta); info.has_value()) return info;
  if (meta->num_records == 0) {
    // Nobody wrote down what is in it, if a crash came soon after its first turns, and perhaps it never came to be:
    // only its records tell.
    const auto held = Hold(entry.principal, entry.id, Access::kRead);
    if (held.ok()) return InfoOf(held->session.get(), /*with_checkpoints=*/false);
    if (absl::IsNotFound(held.status())) return std::nullopt;
    if (!absl::IsDataLoss(held.status()) && !absl::IsFailedPrecondition(held.status())) return held.status();
  }
  SessionInfo info = OfEntry(entry, *meta);
  std::lock_guard<std::mutex> lock(mu_);
  if (const auto damaged = damaged_.find(entry.id); damaged != damaged_.end()) info.damage = damaged->second;
  return info;
}

absl::StatusOr<SessionPage> SessionStore::List(std::string_view principal, const Labels& labels, std::string_view page,
                                               int64_t limit) {
  const std::string owner(principal);
  SessionPage result;
  std::string after(page);
  if (!page.empty() && !IsSessionId(page)) {
    return InvalidField("page_token", absl::StrCat("a token of ", page.size(), " bytes"),
                        "next_page_token of the page before, or none");
  }
  for (bool more = true; more && static_cast<int64_t>(result.sessions.size()) < limit;) {
    std::vector<SessionEntry> entries;
    for (SessionArchive* const archive : archives()) {
      auto some = archive->ListEntries(&owner, after, limit);
      if (!some.ok()) return some.status();
      entries.insert(entries.end(), std::make_move_iterator(some->begin()), std::make_move_iterator(some->end()));
    }
    std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
    more = static_cast<int64_t>(entries.size()) >= limit;
    if (more) entries.resize(static_cast<size_t>(limit));
    for (const SessionEntry& entry : entries) {
      if (static_cast<int64_t>(result.sessions.size()) == limit) break;
      after = entry.id;
      auto info = InfoOfEntry(entry, labels);
      if (!info.ok()) return info.status();
      if (info->has_value()) result.sessions.push_back(**std::move(info));
    }
  }
  if (static_cast<int64_t>(result.sessions.size()) == limit) result.next = after;
  return result;
}

}  // namespace statehouse
