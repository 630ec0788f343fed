#include "engine/sessions/redis_archive.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "engine/sessions/lease_rules.h"

namespace statehouse {
namespace {

// --- scripts; each answers a list whose first item is a word ---

// KEYS: entry, ids, head. ARGV: id, principal, name, meta.
constexpr char kPutEntry[] = R"(
local names = 'statehouse:names:' .. ARGV[2]
local before = redis.call('HGET', KEYS[1], 'name')
if ARGV[3] ~= '' then
  local holder = redis.call('HGET', names, ARGV[3])
  if holder and holder ~= ARGV[1] then return {'taken'} end
end
if before and before ~= '' and before ~= ARGV[3] then redis.call('HDEL', names, before) end
if ARGV[3] ~= '' then redis.call('HSET', names, ARGV[3], ARGV[1]) end
redis.call('HSET', KEYS[1], 'principal', ARGV[2], 'name', ARGV[3], 'meta', ARGV[4])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('ZADD', KEYS[2] .. ':' .. ARGV[2], 0, ARGV[1])
if redis.call('EXISTS', KEYS[3]) == 0 then redis.call('HSET', KEYS[3], 'first', 1, 'last', 0) end
return {'ok'})";

// ARGV: principal, ref. Answers id, principal, name, meta.
constexpr char kFindEntry[] = R"(
local id = ARGV[2]
if redis.call('EXISTS', 'statehouse:entry:' .. id) == 0 then
  id = redis.call('HGET', 'statehouse:names:' .. ARGV[1], ARGV[2])
  if not id then return {'none'} end
end
local entry = redis.call('HMGET', 'statehouse:entry:' .. id, 'principal', 'name', 'meta')
if not entry[1] then return {'none'} end
return {'ok', id, entry[1], entry[2], entry[3]})";

// KEYS: ids, of all or of a principal. ARGV: least, limit.
constexpr char kListEntries[] = R"(
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], '+', 'LIMIT', 0, ARGV[2])) do
  local entry = redis.call('HMGET', 'statehouse:entry:' .. id, 'principal', 'name', 'meta')
  if entry[1] then table.insert(found, {id, entry[1], entry[2], entry[3]}) end
end
return found)";

// What follows has KEYS: entry, lease, fence, records, head.
// Answers unless the fencing token ARGV[1] may write: see MayWrite() in lease_rules.h, which words the same rule.
constexpr char kMayWrite[] = R"(
if redis.call('EXISTS', KEYS[1]) == 0 then return {'none'} end
local newest = redis.call('GET', KEYS[3]) or '0'
local holder = redis.call('GET', KEYS[2])
if newest ~= ARGV[1] then return {'lost', newest, holder or ''} end
if newest ~= '0' and not holder then return {'over', newest} end
local last = redis.call('HGET', KEYS[5], 'last')
)";
// ARGV: fence, number, record. The same record again is the same append, whose answer was lost.
constexpr char kAppend[] = R"(
if last == ARGV[2] and redis.call('LINDEX', KEYS[4], -1) == ARGV[3] then return {'ok'} end
if tonumber(last) + 1 ~= tonumber(ARGV[2]) then return {'last', last} end
redis.call('RPUSH', KEYS[4], ARGV[3])
redis.call('HSET', KEYS[5], 'last', ARGV[2])
return {'ok'})";
constexpr char kCompact[] = R"(
if last ~= ARGV[2] then return {'last', last} end
redis.call('DEL', KEYS[4])
redis.call('RPUSH', KEYS[4], ARGV[3])
redis.call('HSET', KEYS[5], 'first', ARGV[2])
return {'ok'})";
constexpr char kRead[] = R"(
if redis.call('EXISTS', KEYS[1]) == 0 then return {'none'} end
return {'ok', redis.call('HGET', KEYS[5], 'first'), redis.call('LRANGE', KEYS[4], 0, -1)})";
// ARGV: fence, id.
constexpr char kRemove[] = R"(
local entry = redis.call('HMGET', KEYS[1], 'principal', 'name')
if not entry[1] then return {'ok'} end
local holder = redis.call('GET', KEYS[2])
if holder and redis.call('GET', KEYS[3]) ~= ARGV[1] then return {'held', holder, redis.call('PTTL', KEYS[2])} end
local names = 'statehouse:names:' .. entry[1]
if entry[2] ~= '' and redis.call('HGET', names, entry[2]) == ARGV[2] then redis.call('HDEL', names, entry[2]) end
redis.call('ZREM', 'statehouse:ids', ARGV[2])
redis.call('ZREM', 'statehouse:ids:' .. entry[1], ARGV[2])
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])
return {'ok'})";
// ARGV: owner, time to live in ms. Answers fence and time.
constexpr char kAcquire[] = R"(
if redis.call('EXISTS', KEYS[1]) == 0 then return {'none'} end
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then return {'held', holder, redis.call('PTTL', KEYS[2])} end
local fence = redis.call('INCR', KEYS[3])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local time = redis.call('TIME')
return {'ok', fence, time[1], time[2]})";
// ARGV: fence, owner, time to live in ms. Answers fence and time.
constexpr char kRenew[] = R"(
if redis.call('EXISTS', KEYS[1]) == 0 then return {'none'} end
local newest = redis.call('GET', KEYS[3]) or '0'
if newest ~= ARGV[1] then return {'lost', newest, redis.call('GET', KEYS[2]) or ''} end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
local time = redis.call('TIME')
return {'ok', newest, time[1], time[2]})";
// ARGV: fence.
constexpr char kRelease[] = R"(
if redis.call('GET', KEYS[3]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return {'ok'})";
// ARGV: 1 to break it. Answers holder, its time left in ms (negative: none), fence, time.
constexpr char kLease[] = R"(
if redis.call('EXISTS', KEYS[1]) == 0 then return {'none'} end
local holder = redis.call('GET', KEYS[2])
local left = redis.call('PTTL', KEYS[2])
local fence = redis.call('GET', KEYS[3]) or '0'
if ARGV[1] == '1' then
  redis.call('INCR', KEYS[3])
  redis.call('DEL', KEYS[2])
end
local time = redis.call('TIME')
return {'ok', holder or '', left, fence, time[1], time[2]})";

std::vector<std::string> KeysOf(std::string_view id_view) {
  const std::string id(id_view);
  return {absl::StrCat("statehouse:entry:", id), absl::StrCat("statehouse:lease:", id),
          absl::StrCat("statehouse:fence:", id), absl::StrCat("statehouse:records:", id),
          absl::StrCat("statehouse:head:", id)};
}

absl::Status Strange(const std::string& where) {
  return absl::InternalError(absl::StrCat(where, " gave an answer that is none of this script's"));
}

std::string Milliseconds(absl::Duration duration) {
  return absl::StrCat(std::max<int64_t>(1, absl::ToInt64Milliseconds(duration)));
}

absl::Time TimeAt(const RedisReply& reply, size_t index) {
  return absl::FromUnixSeconds(reply.NumberAt(index)) + absl::Microseconds(reply.NumberAt(index + 1));
}

// The status that a script's first word means. `fence` and `number`: what the caller had.
absl::Status Verdict(const RedisReply& reply, const std::string& where, std::string_view id, int64_t fence,
                     int64_t expected_last) {
  const std::string& word = reply.TextAt(0);
  if (word == "ok") return absl::OkStatus();
  if (word == "none") return NoSuchSession(id);
  if (word == "held") return LeaseHeld(reply.TextAt(1), absl::Milliseconds(reply.NumberAt(2)));
  if (word == "lost") return LeaseLost(fence, reply.TextAt(2), reply.NumberAt(1));
  if (word == "over") {
    return absl::AbortedError("the lease ran out or was released; the session has to be read again");
  }
  if (word == "last") return NotTheLast(expected_last, reply.NumberAt(1));
  return Strange(where);
}

// The lease that a script gave or renewed for `ttl`; it answered with fence and time.
absl::StatusOr<SessionLease> Granted(const absl::StatusOr<RedisReply>& reply, const std::string& where,
                                     std::string_view id, const SessionLease& asked, absl::Duration ttl) {
  if (!reply.ok()) return reply.status();
  if (absl::Status status = Verdict(*reply, where, id, asked.fence, 0); !status.ok()) return status;
  return SessionLease{
      .owner = asked.owner, .fence = reply->NumberAt(1), .expires = TimeAt(*reply, 2) + ttl, .left = ttl};
}

// What kLease says of it.
absl::StatusOr<SessionLease> LeaseOf(const absl::StatusOr<RedisReply>& reply, const std::string& where,
                                     std::string_view id) {
  if (!reply.ok()) return reply.status();
  if (absl::Status status = Verdict(*reply, where, id, 0, 0); !status.ok()) return status;
  const absl::Duration left = absl::Milliseconds(reply->NumberAt(2));
  return SessionLease{.owner = reply->TextAt(1),
                      .fence = reply->NumberAt(3),
                      .expires = TimeAt(*reply, 4) + left,
                      .left = std::max(absl::ZeroDuration(), left)};
}

}  // namespace

absl::Status RedisArchive::PutEntry(const SessionEntry& entry) {
  const std::vector<std::string> keys = KeysOf(entry.id);
  const auto reply = client_->Script(kPutEntry, {keys[0], "statehouse:ids", keys[4]},
                                     {entry.id, entry.principal, entry.name, entry.meta});
  if (!reply.ok()) return reply.status();
  if (reply->TextAt(0) == "taken") {
    return absl::AlreadyExistsError(absl::StrCat("the name \"", entry.name, "\" is taken"));
  }
  return Verdict(*reply, client_->where(), entry.id, 0, 0);
}

absl::StatusOr<SessionEntry> RedisArchive::FindEntry(std::string_view principal, std::string_view ref) {
  const auto reply = client_->Script(kFindEntry, {}, {principal, ref});
  if (!reply.ok()) return reply.status();
  if (absl::Status status = Verdict(*reply, client_->where(), ref, 0, 0); !status.ok()) return status;
  return SessionEntry{reply->TextAt(1), reply->TextAt(2), reply->TextAt(3), reply->TextAt(4)};
}

absl::StatusOr<std::vector<SessionEntry>> RedisArchive::ListEntries(const std::string* principal_filter,
                                                                    std::string_view after, int64_t limit) {
  const std::string ids =
      principal_filter == nullptr ? "statehouse:ids" : absl::StrCat("statehouse:ids:", *principal_filter);
  const std::string least = after.empty() ? "-" : absl::StrCat("(", std::string(after));
  const auto reply = client_->Script(kListEntries, {ids}, {least, absl::StrCat(limit)});
  if (!reply.ok()) return reply.status();
  std::vector<SessionEntry> entries;
  for (const RedisReply& item : reply->items) {
    entries.push_back({item.TextAt(0), item.TextAt(1), item.TextAt(2), item.TextAt(3)});
  }
  return entries;
}

absl::StatusOr<int64_t> RedisArchive::CountEntries(std::string_view principal) {
  const auto reply = client_->Run({"ZCARD", absl::StrCat("statehouse:ids:", std::string(principal))});
  if (!reply.ok()) return reply.status();
  return reply->integer;
}

absl::Status RedisArchive::Remove(std::string_view id, int64_t fence) {
  const auto reply = client_->Script(kRemove, KeysOf(id), {absl::StrCat(fence), id});
  return reply.ok() ? Verdict(*reply, client_->where(), id, fence, 0) : reply.status();
}

absl::Status RedisArchive::Append(std::string_view id, int64_t number, int64_t fence, std::string_view record, bool) {
  const auto reply = client_->Script(absl::StrCat(kMayWrite, kAppend), KeysOf(id),
                                     {absl::StrCat(fence), absl::StrCat(number), record});
  return reply.ok() ? Verdict(*reply, client_->where(), id, fence, number - 1) : reply.status();
}

absl::StatusOr<SessionArchive::Records> RedisArchive::Read(std::string_view id) {
  auto reply = client_->Script(kRead, KeysOf(id), {});
  if (!reply.ok()) return reply.status();
  if (absl::Status status = Verdict(*reply, client_->where(), id, 0, 0); !status.ok()) return status;
  if (reply->items.size() != 3) return Strange(client_->where());
  Records records;
  records.first = reply->NumberAt(1);
  for (RedisReply& item : reply->items[2].items) records.records.push_back(std::move(item.text));
  return records;
}

absl::Status RedisArchive::Compact(std::string_view id, int64_t number, int64_t fence, std::string_view record) {
  const auto reply = client_->Script(absl::StrCat(kMayWrite, kCompact), KeysOf(id),
                                     {absl::StrCat(fence), absl::StrCat(number), record});
  return reply.ok() ? Verdict(*reply, client_->where(), id, fence, number) : reply.status();
}

absl::StatusOr<SessionLease> RedisArchive::Acquire(std::string_view id, const std::string& owner, absl::Duration ttl) {
  return Granted(client_->Script(kAcquire, KeysOf(id), {owner, Milliseconds(ttl)}), client_->where(), id,
                 {.owner = owner, .fence = 0, .expires = {}, .left = {}}, ttl);
}

absl::StatusOr<SessionLease> RedisArchive::Renew(std::string_view id, const SessionLease& lease, absl::Duration ttl) {
  return Granted(client_->Script(kRenew, KeysOf(id), {absl::StrCat(lease.fence), lease.owner, Milliseconds(ttl)}),
                 client_->where(), id, lease, ttl);
}

absl::Status RedisArchive::Release(std::string_view id, const SessionLease& lease) {
  return client_->Script(kRelease, KeysOf(id), {absl::StrCat(lease.fence)}).status();
}

absl::StatusOr<SessionLease> RedisArchive::GetLease(std::string_view id) {
  return LeaseOf(client_->Script(kLease, KeysOf(id), {"0"}), client_->where(), id);
}

absl::StatusOr<SessionLease> RedisArchive::Break(std::string_view id) {
  return LeaseOf(client_->Script(kLease, KeysOf(id), {"1"}), client_->where(), id);
}

}  // namespace statehouse
