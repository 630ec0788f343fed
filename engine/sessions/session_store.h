// Sessions: named lines of snapshots that principals own, and turns that append to them. docs/sessions.md is the
// design.
//
// The truth is in the archive (records of token ids) and the arithmetic that it saves in the vault (snapshots). What is
// in memory is a cache of both: a session opens when it is first used, and leaves again when others need the room. The
// store computes nothing: a turn says what to run, its caller runs it, and commits what came out. A turn that is not
// committed leaves no trace but the record that it began.
//
// `ref` is an id or a name everywhere. Errors: NOT_FOUND (no such session of this principal: one of another principal
// is as if it were not there, unless it is shared), ALREADY_EXISTS (name), ABORTED with a retry hint (another turn is
// under way, here or on another server), INVALID_ARGUMENT by field, PERMISSION_DENIED (appending to a shared one of
// another principal), RESOURCE_EXHAUSTED (quota, or the disk is full; nothing is lost), DATA_LOSS (its records are
// damaged; other sessions go on), UNAVAILABLE (the archive does not answer). Thread-safety: every method may be called
// from any thread, and may block on disk or network; never call one from the engine thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/clock.h"
#include "engine/sessions/memory_archive.h"
#include "engine/sessions/session_archive.h"
#include "engine/sessions/session_info.h"
#include "engine/sessions/session_turn.h"
#include "engine/state/snapshot_vault.h"

namespace statehouse {

struct SessionStoreOptions {
  int64_t chunk = 128;                     // C of the model: spaces older snapshots
  int64_t max_snapshots = 8;               // per session, the head's included; >= 1
  int64_t max_sessions_per_principal = 0;  // 0: no limit
  int64_t max_bytes_per_principal = 0;     // of snapshots; 0: no limit
  int64_t snapshot_bytes = 0;              // the most that one can take: a turn must find room for it
  absl::Duration keep_outcomes = absl::Hours(24);
  Clock* clock = nullptr;  // null: Clock::Real()

  SessionArchive* archive = nullptr;  // must outlive the store; null: sessions live as long as it
  SnapshotVault* vault = nullptr;     // must outlive the store; null: no snapshots, every turn computes all
  std::string replica_id = "local";   // owner of leases
  absl::Duration lease = absl::Seconds(30);
  bool is_batch_invariant = true;  // the model's: else restored and repeated work is kContinued, not kExact
  Durability default_durability = Durability::kDefault;  // kDefault: kSync with an archive, else kMemory
  absl::Duration async_lag = absl::Seconds(1);           // of durability `async`
  int64_t max_replay_tokens = 65536;  // with `sync`: the most that has no durable snapshot when a turn is acknowledged
  int64_t max_open_sessions = 1024;   // in memory; those in use stay beyond it
  bool upkeep_thread = true;          // false: the caller calls Upkeep() now and then (tests)
  // Hears of what failed beside turns, at most once a minute; from any thread, and with no lock held.
  std::function<void(const std::string& what)> on_upkeep_failure = {};
};

class SessionStore {
 public:
  // Reads no records. INVALID_ARGUMENT names the option.
  static absl::StatusOr<std::unique_ptr<SessionStore>> Open(const SessionStoreOptions& options);
  // What is written behind is written. REQUIRES: no turn is left.
  ~SessionStore();

  absl::StatusOr<SessionInfo> Create(const SessionSpec& spec);
  absl::StatusOr<SessionInfo> Get(std::string_view principal, std::string_view ref);
  // From position `from` (0 … the session's) on, at most `max` tokens.
  absl::StatusOr<SessionTranscript> Transcript(std::string_view principal, std::string_view ref, int64_t from,
                                               int64_t max);
  // The principal's own that have all of `labels`, by id; `page` as SessionPage::next says, empty: the first. Costs an
  // entry each, however long the sessions are: no checkpoints, and of a session that is not in memory what its entry
  // says (see SessionMeta) and the damage that was found so far.
  absl::StatusOr<SessionPage> List(std::string_view principal, const Labels& labels, std::string_view page,
                                   int64_t limit);
  // From archive and vault. Snapshots that forks share stay until none refers to them. ABORTED while a turn is under
  // way.
  absl::StatusOr<SnapshotVault::Removed> Delete(std::string_view principal, std::string_view ref);
  // A new session of spec.principal (empty: `principal`) with the first `position` tokens (all of them without one). It
  // shares snapshots, and copies none. While a turn is under way it forks what was committed.
  absl::StatusOr<SessionInfo> Fork(std::string_view principal, std::string_view ref, std::optional<int64_t> position,
                                   const SessionSpec& spec);
  // Forgets what lies beyond `position`. Snapshots beyond it are lost, but for one that can be taken back exactly. With
  // dry_run nothing changes. ABORTED while a turn is under way.
  absl::StatusOr<RewindCost> Rewind(std::string_view principal, std::string_view ref, int64_t position, bool dry_run);
  absl::StatusOr<SessionInfo> Update(std::string_view principal, std::string_view ref, const SessionChange& change);

  absl::StatusOr<std::unique_ptr<Turn>> BeginTurn(const TurnRequest& request);
  // A turn that computes the session anew: prompt() is all tokens, from() null. Its Commit(), of no tokens, replaces
  // all snapshots.
  absl::StatusOr<std::unique_ptr<Turn>> BeginRebuild(std::string_view principal, std::string_view ref,
                                                     absl::Time deadline);

  absl::StatusOr<SessionImage> Export(std::string_view principal, std::string_view ref);
  // A new session (`spec` is its name and owner) with the image's tokens, turns and snapshot. That a snapshot was not
  // exact here is for the caller to tell: from now on it is this session's own.
  absl::StatusOr<SessionInfo> Adopt(const SessionSpec& spec, const SessionImage& image);

  // --- for operators ---
  // Whoever holds the session's lease can no longer append. Returns who it was; empty: nobody. With `of_anyone` also of
  // another principal's session, by its id.
  absl::StatusOr<std::string> BreakLease(std::string_view principal, std::string_view ref, bool of_anyone = false);
  // Reads everything that is stored of one session (empty ref: of all of the principal's). Changes nothing.
  absl::StatusOr<SessionReport> Check(std::string_view principal, std::string_view ref);
  // Expire(), and removes snapshots that no session of any principal refers to and that are older than an hour, or on
  // this server's own disk than the store itself.
  absl::StatusOr<GarbageReport> CollectGarbage();
  // Deletes sessions that outlived their ttl. Returns their number.
  absl::StatusOr<int64_t> Expire();
  SessionTotals totals();

  // Writes what is written behind, renews leases: what the upkeep thread does, a few times per lag and lease.
  absl::Status Upkeep();
  // Entries that trail behind their records: of all sessions in memory, or of some of them, going on where it stopped.
  // The housekeeping thread does so every 10 seconds.
  absl::Status WriteSummaries(bool all);
  // No further turns (UNAVAILABLE); waits for those under way, writes everything that is written behind, moves the
  // snapshots of open sessions to where they survive this machine, and gives leases back. DEADLINE_EXCEEDED says what
  // was left.
  absl::Status Drain(absl::Time until);

 private:
  friend class Turn;
  enum class Access { kRead, kAppend, kOperate };  // the last: whoever's it is
  struct Found {
    SessionArchive* archive = nullptr;
    SessionEntry entry;
  };

  explicit SessionStore(const SessionStoreOptions& options);

  // --- finding and opening (session_store.cc) ---
  std::vector<SessionArchive*> archives();
  SessionArchive* ArchiveFor(Durability durability);
  Durability DurabilityOf(const SessionSpec& spec) const;
  absl::StatusOr<Found> FindEntry(std::string_view principal, std::string_view ref, Access access);
  // In the table of open sessions; its content may not have been read. May write the entry of one that leaves.
  std::shared_ptr<OpenSession> Opened(const Found& found);
  // REQUIRES for these: mu_ is held.
  // Those that nobody uses leave while there are too many; returned are those whose entries are to be written before.
  std::vector<std::shared_ptr<OpenSession>> MakeRoom();
  void NoteUse(OpenSession* session);
  void Close(const std::string& id);
  // REQUIRES for those with a session, from here on: session->mu is held.
  // Reads entry and records if they are not in memory or may be stale.
  absl::Status Refresh(OpenSession* session);
  absl::Status ReadRecords(OpenSession* session);
  // Found, and its content is as the archive says. Locks it.
  struct Held {
    std::shared_ptr<OpenSession> session;
    std::unique_lock<std::mutex> lock;
  };
  absl::StatusOr<Held> Hold(std::string_view principal, std::string_view ref, Access access);
  // The same with the right to append: not busy, lease held.
  absl::StatusOr<Held> HoldToAppend(std::string_view principal, std::string_view ref);
  absl::Status AcquireLease(OpenSession* session);
  void ReleaseLease(OpenSession* session);
  SessionInfo InfoOf(OpenSession* session, bool with_checkpoints = true);

  // --- listing (session_listing.cc) ---
  // As it is in memory, without checkpoints: not all listed have them without their records. Empty: it is not there, or
  // was read before the last record that `meta` counts was written.
  std::optional<SessionInfo> InfoIfOpen(const SessionEntry& entry, const SessionMeta& meta);
  // Empty: it does not have all labels, or never came to be.
  absl::StatusOr<std::optional<SessionInfo>> InfoOfEntry(const SessionEntry& entry, const Labels& labels);

  // --- writing (session_writes.cc) ---
  absl::Status CheckSpec(const SessionSpec& spec) const;
  absl::Status CheckName(std::string_view principal, const std::string& name);
  absl::Status CheckQuota(std::string_view principal, int64_t more_sessions, int64_t more_bytes);
  absl::StatusOr<SessionInfo> Insert(const SessionSpec& spec, SessionContent content, const std::string& family);
  absl::Status Append(OpenSession* session, SessionRecord record);
  absl::Status PutEntry(OpenSession* session);
  // Puts the entry with what `change` makes of it. Where servers share the archive, it is read just before, so that
  // what others changed stays; what one changes between that and the writing is lost, since entries have no fence.
  absl::Status ChangeEntry(OpenSession* session, const std::function<void(SessionEntry*, SessionMeta*)>& change);
  // Marks those of a fork and those of its source as shared. Two servers that share the archive see the mark too.
  absl::Status ShareCheckpoints(OpenSession* source, std::vector<Checkpoint>* checkpoints);
  // Reads the entry again where servers share the archive. Did one of them fork the session since? Its checkpoints are
  // marked as shared then, which PutEntry() makes last.
  absl::StatusOr<bool> RefreshEntry(OpenSession* session);
  // Makes snapshots as durable as sessions of the archive ask for. One that cannot be had costs a replay.
  void KeepFor(const SessionArchive* archive, const std::vector<Checkpoint>& checkpoints);
  // Snapshots that the last record no longer names.
  void DropKeys(OpenSession* session, const std::vector<Checkpoint>& before);
  void CompactIfWorthwhile(OpenSession* session);
  // REQUIRES: naming_mu_ is held if the name changes, and the lease if the archive does.
  absl::StatusOr<SessionInfo> ChangeTo(OpenSession* session, const SessionChange& change);
  absl::Status MoveTo(OpenSession* session, Durability durability);
  absl::StatusOr<SnapshotVault::Removed> Remove(OpenSession* session);
  // Of the session that was removed, those shared snapshots that no relative refers to.
  absl::Status DropFamilyKeys(const OpenSession& session, SnapshotVault::Removed* removed);
  void CountBytes(const OpenSession& session, int64_t bytes);

  // --- turns (session_turn.cc, and session_commit.cc from Keep() on) ---
  absl::StatusOr<std::unique_ptr<Turn>> Begin(const TurnRequest& request, bool is_rebuild);
  absl::Status TakeTurn(const TurnRequest& request, OpenSession* session, Turn* turn);
  absl::Status PrepareTurn(const TurnRequest& request, OpenSession* session, Turn* turn);
  absl::StatusOr<bool> FindEarlier(const TurnRequest& request, const OpenSession& session, Turn* turn);
  absl::Status FetchStart(const TurnRequest& request, std::vector<Checkpoint> usable, Turn* turn);
  // What follows on earlier work, on arithmetic that does not repeat itself to the bit.
  void SayIfContinued(Turn* turn) const;
  std::vector<Checkpoint> Keep(const OpenSession& session, const Turn& turn, int64_t num_tokens,
                               std::span<const std::shared_ptr<const Snapshot>> snapshots,
                               std::vector<std::string>* new_keys);
  // Of which snapshots one has to be durable before a turn that ends at `head` is acknowledged, the oldest first: it is
  // the likeliest to be written already. Empty: nothing to wait for. RESOURCE_EXHAUSTED: one has to, and there is none.
  absl::StatusOr<std::vector<std::string>> KeysToWaitFor(const OpenSession& session,
                                                         const std::vector<Checkpoint>& checkpoints,
                                                         int64_t head) const;
  // Returns the key of one that is written. REQUIRES: session->mu is not held.
  absl::StatusOr<std::string> WaitForDurableSnapshot(const std::vector<std::string>& keys, bool shared,
                                                     absl::Time deadline);
  absl::StatusOr<TurnOutcome> Commit(Turn* turn, TurnOutcome outcome,
                                     std::span<const std::shared_ptr<const Snapshot>> snapshots);
  void EndTurn(OpenSession* session);
  // Nothing happens to one that holds anything or is in use.
  void RemoveIfUnused(const std::string& principal, const std::string& id);

  // --- upkeep (session_upkeep.cc) ---
  void RunUpkeep();
  // Summaries and ends of lives may take long where there are many sessions: they hold up no lease.
  void RunHousekeeping();
  // Runs `work` every `period` until the store goes.
  void Repeat(absl::Duration period, const std::function<void()>& work);
  void NoteUpkeep(const char* what, const absl::Status& status);
  absl::Status RenewLeases();
  // Was it over, and is it gone?
  bool ExpireOne(const SessionEntry& entry);
  // What the entries say counts for quotas, but for sessions that are open here.
  using BytesByOwner = std::map<std::string, std::map<std::string, int64_t>, std::less<>>;
  void TakeBytes(BytesByOwner seen);
  std::vector<std::shared_ptr<OpenSession>> OpenSessions();
  // If its entry trails and no turn is under way. REQUIRES: session->mu is held.
  absl::Status WriteSummary(OpenSession* session);
  absl::Status CheckOne(const SessionEntry& entry, SessionArchive* archive, SessionReport* report);

  const SessionStoreOptions options_;
  Clock* const clock_;
  const absl::Time opened_;
  MemoryArchive memory_;

  std::mutex naming_mu_;  // held while a name is looked for and then taken; comes before a session's
  std::mutex mu_;         // comes after a session's
  // Guarded by mu_, as are all below. By id; those that nobody else refers to may leave.
  std::map<std::string, std::shared_ptr<OpenSession>, std::less<>> open_;
  std::map<int64_t, std::string> by_use_;  // ids, the least recently used first
  int64_t uses_ = 0;
  int64_t busy_ = 0;
  bool draining_ = false;
  bool stopping_ = false;
  std::condition_variable turn_ended_;
  std::condition_variable stop_;
  BytesByOwner bytes_;                          // of snapshots, by principal and id
  std::map<std::string, std::string> damaged_;  // ids and what is wrong
  std::string summaries_after_;                 // the last id that WriteSummaries() came to
  int64_t upkeep_failures_ = 0;
  std::string last_upkeep_failure_;
  absl::Time next_warning_ = absl::InfinitePast();
  std::atomic<bool> has_unsynced_{false};
  std::thread upkeep_;
  std::thread housekeeping_;
};

}  // namespace statehouse
