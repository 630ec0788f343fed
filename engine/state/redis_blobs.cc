#include "engine/state/redis_blobs.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/random_id.h"
#include "engine/state/folder_blobs.h"  // CheckBlobKey

namespace statehouse {
namespace {

constexpr char kIndex[] = "statehouse:blobs";
constexpr char kAbandonedSeconds[] = "86400";
constexpr int kMaxTries = 64;

std::string HeadKey(const std::string& key) { return absl::StrCat("statehouse:blob:", key); }
std::string PartPrefix(const std::string& key) { return absl::StrCat("statehouse:part:", key, ":"); }
std::string PartKey(const std::string& key, const std::string& nonce, int64_t part) {
  return absl::StrCat(PartPrefix(key), nonce, ":", part);
}

// KEYS: head, index. ARGV: key, nonce, parts, bytes, checksum, prefix of parts.
// Parts that are to stay are kept; those of the value before go.
constexpr char kCommit[] = R"(
for part = 0, tonumber(ARGV[3]) - 1 do
  if redis.call('PERSIST', ARGV[6] .. ARGV[2] .. ':' .. part) == 0
     and redis.call('EXISTS', ARGV[6] .. ARGV[2] .. ':' .. part) == 0 then return 0 end
end
local before = redis.call('HMGET', KEYS[1], 'nonce', 'parts')
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'nonce', ARGV[2], 'parts', ARGV[3], 'bytes', ARGV[4], 'checksum', ARGV[5],
           'time', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('ZADD', KEYS[2], 0, ARGV[1])
if before[1] and before[1] ~= ARGV[2] then
  for part = 0, tonumber(before[2]) - 1 do redis.call('DEL', ARGV[6] .. before[1] .. ':' .. part) end
end
return 1)";

// KEYS: head, index. ARGV: key, prefix of parts.
constexpr char kRemove[] = R"(
local head = redis.call('HMGET', KEYS[1], 'nonce', 'parts')
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
if head[1] then
  for part = 0, tonumber(head[2]) - 1 do redis.call('DEL', ARGV[2] .. head[1] .. ':' .. part) end
end
return 1)";

// KEYS: head, index, head in quarantine. ARGV: key.
constexpr char kQuarantine[] = R"(
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[3]) end
redis.call('ZREM', KEYS[2], ARGV[1])
return 1)";

// KEYS: index. ARGV: least, greatest, limit, prefix of heads. Answers key, bytes, time of each.
constexpr char kList[] = R"(
local keys = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])
local found = {}
for _, key in ipairs(keys) do
  local head = redis.call('HMGET', ARGV[4] .. key, 'bytes', 'time')
  table.insert(found, {key, head[1] or '0', head[2] or '0'})
end
return found)";

}  // namespace

struct RedisBlobs::Head {
  std::string nonce;
  int64_t parts = 0;
  int64_t bytes = 0;
  std::string checksum;
  absl::Time modified;
};

// Collects bytes and sends a part when it is full.
class RedisBlobs::PartWriter {
 public:
  PartWriter(RedisClient* client, const std::string& key, size_t part_bytes)
      : client_(client), key_(key), part_bytes_(part_bytes), hash_(XXH3_createState()) {
    XXH3_64bits_reset(hash_);
  }
  PartWriter(const PartWriter&) = delete;
  PartWriter& operator=(const PartWriter&) = delete;
  ~PartWriter() { XXH3_freeState(hash_); }

  absl::Status Take(std::span<const std::byte> bytes) {
    XXH3_64bits_update(hash_, bytes.data(), bytes.size());
    bytes_ += static_cast<int64_t>(bytes.size());
    while (!bytes.empty()) {
      const size_t count = std::min(bytes.size(), part_bytes_ - part_.size());
      part_.append(reinterpret_cast<const char*>(bytes.data()), count);
      bytes = bytes.subspan(count);
      if (part_.size() < part_bytes_) continue;
      if (absl::Status status = Send(); !status.ok()) return status;
    }
    return absl::OkStatus();
  }
  // Makes what was sent the value of the key.
  absl::Status Commit() {
    if (!part_.empty()) {
      if (absl::Status status = Send(); !status.ok()) return status;
    }
    const auto done =
        client_->Script(kCommit, {HeadKey(key_), kIndex},
                        {key_, nonce_, absl::StrCat(num_parts_), absl::StrCat(bytes_),
                         absl::StrCat(absl::Hex(XXH3_64bits_digest(hash_), absl::kZeroPad16)), PartPrefix(key_)});
    if (!done.ok()) return done.status();
    if (done->integer == 1) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat(client_->where(), ": it lost a part of what it took"));
  }
  void Abandon() {
    for (int64_t part = 0; part < num_parts_; ++part) {
      // What stays goes away by itself.
      if (!client_->Run({"DEL", PartKey(key_, nonce_, part)}).ok()) return;
    }
  }

 private:
  absl::Status Send() {
    const std::string key = PartKey(key_, nonce_, num_parts_++);
    auto sent = client_->Run({"SET", key, part_, "EX", kAbandonedSeconds});
    part_.clear();
    return sent.status();
  }

  RedisClient* const client_;
  const std::string& key_;
  const size_t part_bytes_;
  const std::string nonce_ = RandomHex(16);
  XXH3_state_t* const hash_;
  std::string part_;
  int64_t num_parts_ = 0;
  int64_t bytes_ = 0;
};

absl::Status RedisBlobs::Put(const std::string& key, const std::function<absl::Status(const ByteSink&)>& write) {
  if (absl::Status status = CheckBlobKey(key); !status.ok()) return status;
  PartWriter writer(client_.get(), key, part_bytes_);
  absl::Status status = write([&writer](std::span<const std::byte> bytes) { return writer.Take(bytes); });
  if (!status.ok()) {
    writer.Abandon();
    return status;
  }
  status = writer.Commit();
  // Without an answer it may have been done: parts of a value must not be taken away then.
  if (absl::IsResourceExhausted(status)) writer.Abandon();
  return status;
}

absl::StatusOr<RedisBlobs::Head> RedisBlobs::ReadHead(const std::string& key) {
  if (absl::Status status = CheckBlobKey(key); !status.ok()) return status;
  const auto fields = client_->Run({"HMGET", HeadKey(key), "nonce", "parts", "bytes", "checksum", "time"});
  if (!fields.ok()) return fields.status();
  if (fields->TextAt(0).empty()) return absl::NotFoundError(absl::StrCat(client_->where(), " has no ", key));
  return Head{.nonce = fields->TextAt(0),
              .parts = fields->NumberAt(1),
              .bytes = fields->NumberAt(2),
              .checksum = fields->TextAt(3),
              .modified = absl::FromUnixMillis(fields->NumberAt(4))};
}

absl::StatusOr<std::vector<std::byte>> RedisBlobs::ReadParts(const std::string& key, const Head& head) {
  std::vector<std::byte> value;
  for (int64_t part = 0; part < head.parts; ++part) {
    const auto got = client_->Run({"GET", PartKey(key, head.nonce, part)});
    if (!got.ok()) return got.status();
    if (got->is_nil()) return absl::NotFoundError("a part has gone");
    const std::byte* const bytes = reinterpret_cast<const std::byte*>(got->text.data());
    value.insert(value.end(), bytes, bytes + got->text.size());
  }
  return value;
}

absl::StatusOr<std::vector<std::byte>> RedisBlobs::Get(const std::string& key) {
  std::string nonce;
  for (int attempt = 0; attempt < kMaxTries; ++attempt) {
    const auto head = ReadHead(key);
    if (!head.ok()) return head.status();
    // The same value twice with a part missing was not replaced meanwhile.
    if (head->nonce == nonce) {
      return absl::DataLossError(absl::StrCat(client_->where(), ": a part of ", key, " is missing"));
    }
    nonce = head->nonce;
    auto value = ReadParts(key, *head);
    if (absl::IsNotFound(value.status())) continue;
    if (!value.ok()) return value.status();
    const std::string checksum = absl::StrCat(absl::Hex(XXH3_64bits(value->data(), value->size()), absl::kZeroPad16));
    if (checksum == head->checksum && static_cast<int64_t>(value->size()) == head->bytes) return value;
    return absl::DataLossError(absl::StrCat(client_->where(), ": the checksum of ", key, " does not fit"));
  }
  return absl::UnavailableError(absl::StrCat(client_->where(), ": ", key, " is replaced faster than it can be read"));
}

absl::StatusOr<BlobInfo> RedisBlobs::Stat(const std::string& key) {
  const auto head = ReadHead(key);
  if (!head.ok()) return head.status();
  return BlobInfo{key, head->bytes, head->modified};
}

absl::Status RedisBlobs::Remove(const std::string& key) {
  if (absl::Status status = CheckBlobKey(key); !status.ok()) return status;
  return client_->Script(kRemove, {HeadKey(key), kIndex}, {key, PartPrefix(key)}).status();
}

absl::Status RedisBlobs::Quarantine(const std::string& key) {
  if (absl::Status status = CheckBlobKey(key); !status.ok()) return status;
  const std::string aside = absl::StrCat("statehouse:quarantine:", key);
  return client_->Script(kQuarantine, {HeadKey(key), kIndex, aside}, {key}).status();
}

absl::StatusOr<std::vector<BlobInfo>> RedisBlobs::List(const std::string& prefix, const std::string& after,
                                                       int64_t limit) {
  const std::string least = after >= prefix && !after.empty() ? absl::StrCat("(", after)
                            : prefix.empty()                  ? "-"
                                                              : absl::StrCat("[", prefix);
  const std::string greatest = prefix.empty() ? "+" : absl::StrCat("[", prefix, "\xff");
  const auto list = client_->Script(kList, {kIndex}, {least, greatest, absl::StrCat(limit), "statehouse:blob:"});
  if (!list.ok()) return list.status();
  std::vector<BlobInfo> found;
  for (const RedisReply& item : list->items) {
    found.push_back({item.TextAt(0), item.NumberAt(1), absl::FromUnixMillis(item.NumberAt(2))});
  }
  return found;
}

}  // namespace statehouse
