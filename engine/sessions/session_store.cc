#include "engine/sessions/session_store.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"

namespace statehouse {
namespace {

constexpr size_t kMaxNameBytes = 128;
constexpr size_t kMaxKeyBytes = 128;
constexpr size_t kMaxLabels = 64;
constexpr size_t kMaxLabelBytes = 256;

std::string NewId() {
  std::random_device device;
  std::string id;
  for (int part = 0; part < 4; ++part) absl::StrAppend(&id, absl::Hex(device(), absl::kZeroPad8));
  return id;
}

bool ByPosition(const std::shared_ptr<const Snapshot>& a, const std::shared_ptr<const Snapshot>& b) {
  return a->position() < b->position();
}

}  // namespace

struct SessionStore::Session {
  std::string id;
  SessionSpec spec;
  std::vector<int32_t> tokens;
  std::vector<std::shared_ptr<const Snapshot>> snapshots;  // ascending positions
  absl::Time created;
  absl::Time last_turn;
  bool busy = false;
  struct Kept {
    std::vector<int32_t> input;
    TurnOutcome outcome;
    absl::Time at;
  };
  std::map<std::string, Kept, std::less<>> outcomes;  // by idempotency key

  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()); }
  int64_t snapshot_bytes() const {
    int64_t bytes = 0;
    for (const auto& snapshot : snapshots) bytes += snapshot->bytes();
    return bytes;
  }
  // The deepest snapshot of the first `position` tokens; one that lies there must have logits to start from.
  std::shared_ptr<const Snapshot> DeepestFor(int64_t position, bool needs_logits) const {
    for (auto snapshot = snapshots.rbegin(); snapshot != snapshots.rend(); ++snapshot) {
      const int64_t at = (*snapshot)->position();
      if (at < position || (at == position && !(needs_logits && (*snapshot)->logits().empty()))) return *snapshot;
    }
    return nullptr;
  }
};

struct SessionStore::Principal {
  std::map<std::string, std::shared_ptr<Session>, std::less<>> by_id;
  std::map<std::string, std::shared_ptr<Session>, std::less<>> by_name;
};

SessionStore::SessionStore(const SessionStoreOptions& options)
    : options_(options), clock_(options.clock == nullptr ? Clock::Real() : options.clock) {}

SessionStore::~SessionStore() = default;

SessionStore::Turn::~Turn() {
  if (!open_) return;
  std::lock_guard<std::mutex> lock(store_->mu_);
  store_->EndTurn(session_.get());
}

TurnOutcome SessionStore::Turn::Commit(TurnOutcome outcome,
                                       std::span<const std::shared_ptr<const Snapshot>> snapshots) {
  std::lock_guard<std::mutex> lock(store_->mu_);
  Session& session = *session_;
  std::vector<int32_t> input(prompt_.begin() + session.num_tokens(), prompt_.end());
  session.tokens = std::move(prompt_);
  session.tokens.insert(session.tokens.end(), outcome.tokens.begin(), outcome.tokens.end());
  outcome.num_tokens = session.num_tokens();
  for (const auto& snapshot : snapshots) {
    if (snapshot != nullptr) session.snapshots.push_back(snapshot);
  }
  std::stable_sort(session.snapshots.begin(), session.snapshots.end(), ByPosition);
  store_->Prune(&session);
  session.last_turn = store_->clock_->Now();
  if (!key_.empty()) session.outcomes[key_] = {std::move(input), outcome, session.last_turn};
  store_->EndTurn(&session);
  open_ = false;
  return outcome;
}

void SessionStore::EndTurn(Session* session) { session->busy = false; }

absl::StatusOr<std::shared_ptr<SessionStore::Session>> SessionStore::Find(std::string_view principal,
                                                                          std::string_view ref) const {
  if (const auto owner = principals_.find(principal); owner != principals_.end()) {
    if (const auto by_id = owner->second.by_id.find(ref); by_id != owner->second.by_id.end()) return by_id->second;
    if (const auto by_name = owner->second.by_name.find(ref); by_name != owner->second.by_name.end()) {
      return by_name->second;
    }
  }
  return absl::NotFoundError(absl::StrCat("session: you have none with the id or name \"", std::string(ref), "\""));
}

absl::Status SessionStore::CheckSpec(const SessionSpec& spec) const {
  if (spec.name.size() > kMaxNameBytes) {
    return InvalidField("session.name", absl::StrCat("a name of ", spec.name.size(), " bytes"),
                        absl::StrCat("at most ", kMaxNameBytes, " bytes"));
  }
  if (spec.labels.size() > kMaxLabels) {
    return InvalidField("session.labels", absl::StrCat(spec.labels.size(), " labels"),
                        absl::StrCat("at most ", kMaxLabels));
  }
  for (const auto& [key, value] : spec.labels) {
    if (key.empty() || key.size() > kMaxLabelBytes || value.size() > kMaxLabelBytes) {
      return InvalidField("session.labels", absl::StrCat("a label of ", key.size(), " and ", value.size(), " bytes"),
                          absl::StrCat("a key of 1 to ", kMaxLabelBytes, " bytes and a value of at most as many"));
    }
  }
  if (spec.ttl <= absl::ZeroDuration()) {
    return InvalidField("session.ttl", absl::FormatDuration(spec.ttl), "more than 0");
  }
  const auto owner = principals_.find(spec.principal);
  if (!spec.name.empty() && owner != principals_.end() &&
      (owner->second.by_name.contains(spec.name) || owner->second.by_id.contains(spec.name))) {
    return absl::AlreadyExistsError(
        absl::StrCat("session.name: you have a session \"", spec.name, "\"; choose another name, or delete it"));
  }
  return absl::OkStatus();
}

absl::Status SessionStore::CheckQuota(std::string_view principal, int64_t more_sessions, int64_t more_bytes) const {
  int64_t sessions = more_sessions;
  int64_t bytes = more_bytes;
  if (const auto owner = principals_.find(principal); owner != principals_.end()) {
    sessions += static_cast<int64_t>(owner->second.by_id.size());
    for (const auto& [id, session] : owner->second.by_id) bytes += session->snapshot_bytes();
  }
  if (options_.max_sessions_per_principal > 0 && sessions > options_.max_sessions_per_principal) {
    return absl::ResourceExhaustedError(absl::StrCat("sessions: you have ", sessions - more_sessions, " of ",
                                                     options_.max_sessions_per_principal, "; delete one first"));
  }
  if (options_.max_bytes_per_principal > 0 && bytes > options_.max_bytes_per_principal) {
    return absl::ResourceExhaustedError(absl::StrCat("sessions: your snapshots take ", bytes - more_bytes, " of ",
                                                     options_.max_bytes_per_principal, " bytes, and this needs up to ",
                                                     more_bytes, " more; delete a session first"));
  }
  return absl::OkStatus();
}

std::shared_ptr<SessionStore::Session> SessionStore::Insert(const SessionSpec& spec) {
  auto session = std::make_shared<Session>();
  session->id = NewId();
  session->spec = spec;
  session->created = session->last_turn = clock_->Now();
  Principal& owner = principals_[spec.principal];
  owner.by_id[session->id] = session;
  if (!spec.name.empty()) owner.by_name[spec.name] = session;
  return session;
}

void SessionStore::Erase(const Session& session) {
  const auto owner = principals_.find(session.spec.principal);
  if (!session.spec.name.empty()) owner->second.by_name.erase(session.spec.name);
  owner->second.by_id.erase(std::string(session.id));
  if (owner->second.by_id.empty()) principals_.erase(owner);
}

// Keeps the head and, for each k, the newest snapshot at or before head − C·4^k.
void SessionStore::Prune(Session* session) const {
  std::vector<std::shared_ptr<const Snapshot>>& all = session->snapshots;
  // Of several at one position the newest stays: it may hold logits.
  std::vector<std::shared_ptr<const Snapshot>> distinct;
  for (const auto& snapshot : all) {
    if (!distinct.empty() && distinct.back()->position() == snapshot->position()) distinct.pop_back();
    distinct.push_back(snapshot);
  }
  if (static_cast<int64_t>(distinct.size()) > options_.max_snapshots) {
    const int64_t head = distinct.back()->position();
    std::vector<std::shared_ptr<const Snapshot>> kept = {distinct.back()};
    int64_t distance = options_.chunk;
    for (int64_t k = 0; static_cast<int64_t>(kept.size()) < options_.max_snapshots && distance < head; ++k) {
      const auto beyond =
          std::find_if(distinct.begin(), distinct.end(),
                       [limit = head - distance](const auto& snapshot) { return snapshot->position() > limit; });
      if (beyond == distinct.begin()) break;
      if (kept.back() != *(beyond - 1)) kept.push_back(*(beyond - 1));
      distance *= 4;
    }
    std::reverse(kept.begin(), kept.end());
    distinct = std::move(kept);
  }
  all = std::move(distinct);
}

SessionInfo SessionStore::InfoOf(const Session& session) const {
  SessionInfo info;
  info.id = session.id;
  info.spec = session.spec;
  info.num_tokens = session.num_tokens();
  for (const auto& snapshot : session.snapshots) info.snapshot_positions.push_back(snapshot->position());
  info.snapshot_bytes = session.snapshot_bytes();
  info.created = session.created;
  info.last_turn = session.last_turn;
  info.busy = session.busy;
  return info;
}

absl::StatusOr<SessionInfo> SessionStore::Create(const SessionSpec& spec) {
  std::lock_guard<std::mutex> lock(mu_);
  if (absl::Status status = CheckSpec(spec); !status.ok()) return status;
  if (absl::Status status = CheckQuota(spec.principal, 1, 0); !status.ok()) return status;
  return InfoOf(*Insert(spec));
}

absl::StatusOr<SessionInfo> SessionStore::Get(std::string_view principal, std::string_view ref) const {
  std::lock_guard<std::mutex> lock(mu_);
  const auto session = Find(principal, ref);
  if (!session.ok()) return session.status();
  return InfoOf(**session);
}

absl::StatusOr<std::vector<int32_t>> SessionStore::Tokens(std::string_view principal, std::string_view ref) const {
  std::lock_guard<std::mutex> lock(mu_);
  const auto session = Find(principal, ref);
  if (!session.ok()) return session.status();
  return (*session)->tokens;
}

std::vector<SessionInfo> SessionStore::List(std::string_view principal, const Labels& labels, std::string_view after,
                                            int64_t limit) const {
  std::lock_guard<std::mutex> lock(mu_);
  std::vector<SessionInfo> page;
  const auto owner = principals_.find(principal);
  if (owner == principals_.end()) return page;
  for (auto entry = owner->second.by_id.upper_bound(after);
       entry != owner->second.by_id.end() && static_cast<int64_t>(page.size()) < limit; ++entry) {
    const Labels& has = entry->second->spec.labels;
    const bool fits = std::all_of(labels.begin(), labels.end(), [&has](const auto& wanted) {
      const auto found = has.find(wanted.first);
      return found != has.end() && found->second == wanted.second;
    });
    if (fits) page.push_back(InfoOf(*entry->second));
  }
  return page;
}

absl::Status SessionStore::Delete(std::string_view principal, std::string_view ref) {
  std::lock_guard<std::mutex> lock(mu_);
  const auto session = Find(principal, ref);
  if (!session.ok()) return session.status();
  if ((*session)->busy) return absl::AbortedError("session: a turn is under way; cancel it or wait for its end");
  Erase(**session);
  return absl::OkStatus();
}

absl::StatusOr<SessionInfo> SessionStore::Fork(std::string_view principal, std::string_view ref,
                                               std::optional<int64_t> position, const SessionSpec& spec) {
  std::lock_guard<std::mutex> lock(mu_);
  const auto found = Find(principal, ref);
  if (!found.ok()) return found.status();
  const Session& source = **found;
  const int64_t at = position.value_or(source.num_tokens());
  if (at < 0 || at > source.num_tokens()) {
    return InvalidField("position", absl::StrCat(at), absl::StrCat("a position in [0, ", source.num_tokens(), "]"));
  }
  SessionSpec forked = spec;
  forked.principal = source.spec.principal;
  if (absl::Status status = CheckSpec(forked); !status.ok()) return status;
  if (absl::Status status = CheckQuota(forked.principal, 1, source.snapshot_bytes()); !status.ok()) return status;
  const std::shared_ptr<Session> session = Insert(forked);
  session->tokens.assign(source.tokens.begin(), source.tokens.begin() + at);
  for (const auto& snapshot : source.snapshots) {
    if (snapshot->position() <= at) {
      session->snapshots.push_back(snapshot);
    } else if (at >= snapshot->exact_from()) {
      session->snapshots.push_back(snapshot->TakenBackTo(at));
      break;
    }
  }
  return InfoOf(*session);
}

absl::StatusOr<RewindCost> SessionStore::Rewind(std::string_view principal, std::string_view ref, int64_t position,
                                                bool dry_run) {
  std::lock_guard<std::mutex> lock(mu_);
  const auto found = Find(principal, ref);
  if (!found.ok()) return found.status();
  Session& session = **found;
  if (session.busy) return absl::AbortedError("session: a turn is under way; cancel it or wait for its end");
  if (position < 0 || position > session.num_tokens()) {
    return InvalidField("position", absl::StrCat(position),
                        absl::StrCat("a position in [0, ", session.num_tokens(), "]"));
  }
  std::vector<std::shared_ptr<const Snapshot>> kept;
  for (const auto& snapshot : session.snapshots) {
    if (snapshot->position() <= position) {
      kept.push_back(snapshot);
    } else if (position >= snapshot->exact_from()) {
      if (kept.empty() || kept.back()->position() < position) kept.push_back(snapshot->TakenBackTo(position));
      break;
    }
  }
  RewindCost cost;
  cost.position = position;
  cost.snapshot_position = kept.empty() ? 0 : kept.back()->position();
  cost.tokens_to_compute = position - cost.snapshot_position;
  if (dry_run) return cost;
  session.tokens.resize(static_cast<size_t>(position));
  session.snapshots = std::move(kept);
  // What a retry would repeat is no longer there.
  std::erase_if(session.outcomes, [position](const auto& kept) { return kept.second.outcome.num_tokens > position; });
  return cost;
}

absl::Status SessionStore::SetPinned(std::string_view principal, std::string_view ref, bool pinned) {
  std::lock_guard<std::mutex> lock(mu_);
  const auto session = Find(principal, ref);
  if (!session.ok()) return session.status();
  (*session)->spec.pinned = pinned;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<SessionStore::Turn>> SessionStore::BeginTurn(std::string_view principal,
                                                                            std::string_view ref,
                                                                            std::span<const int32_t> input,
                                                                            std::string_view key) {
  if (key.size() > kMaxKeyBytes) {
    return InvalidField("idempotency_key", absl::StrCat("a key of ", key.size(), " bytes"),
                        absl::StrCat("at most ", kMaxKeyBytes, " bytes"));
  }
  std::lock_guard<std::mutex> lock(mu_);
  const auto found = Find(principal, ref);
  if (!found.ok()) return found.status();
  Session& session = **found;
  std::unique_ptr<Turn> turn(new Turn(this, *found));
  turn->open_ = false;  // until it holds the session
  if (const auto kept = session.outcomes.find(key); !key.empty() && kept != session.outcomes.end()) {
    const std::vector<int32_t>& first = kept->second.input;
    if (!std::equal(first.begin(), first.end(), input.begin(), input.end())) {
      return InvalidField("idempotency_key", "a key that another input was sent with", "a new key for a new turn");
    }
    turn->repeated_ = kept->second.outcome;
    return turn;
  }
  if (session.busy) {
    return absl::AbortedError("session: another turn is under way; wait for its end, or fork the session");
  }
  if (session.tokens.empty() && input.empty()) {
    return InvalidField("input", "no tokens", "at least one for the first turn");
  }
  if (absl::Status status = CheckQuota(principal, 0, options_.snapshot_bytes); !status.ok()) return status;
  session.busy = true;
  turn->open_ = true;
  turn->key_ = std::string(key);
  turn->prompt_ = session.tokens;
  turn->prompt_.insert(turn->prompt_.end(), input.begin(), input.end());
  turn->from_ = session.DeepestFor(static_cast<int64_t>(turn->prompt_.size()), /*needs_logits=*/true);
  return turn;
}

int64_t SessionStore::Expire() {
  std::lock_guard<std::mutex> lock(mu_);
  const absl::Time now = clock_->Now();
  std::vector<std::shared_ptr<Session>> ended;
  for (auto& [name, principal] : principals_) {
    for (auto& [id, session] : principal.by_id) {
      std::erase_if(session->outcomes,
                    [&](const auto& kept) { return now - kept.second.at >= options_.keep_outcomes; });
      if (!session->busy && !session->spec.pinned && now - session->last_turn >= session->spec.ttl) {
        ended.push_back(session);
      }
    }
  }
  for (const auto& session : ended) Erase(*session);
  return static_cast<int64_t>(ended.size());
}

}  // namespace statehouse
