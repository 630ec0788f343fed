// A BlobStore on Redis or Valkey. A value lies in parts of at most 16 MB, under a name of its own each time it is put;
// one script makes them the key's value, so that a reader sees all of one value.
//
// Keys in Redis, all beginning with "statehouse:": "blob:<key>" (hash: nonce, parts, bytes, checksum, time),
// "part:<key>:<nonce>:<n>", "blobs" (sorted set of keys), "quarantine:<key>". Parts whose writer died go away after a
// day by themselves. "Survives a crash" is as good as the server's own persistence: docs/replicas.md. Thread-safety: as
// BlobStore.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/state/blob_store.h"
#include "engine/state/redis_client.h"

namespace statehouse {

class RedisBlobs final : public BlobStore {
 public:
  static constexpr size_t kPartBytes = size_t{16} << 20;

  // `part_bytes`: smaller ones are for tests.
  RedisBlobs(std::shared_ptr<RedisClient> client, std::string name, size_t part_bytes = kPartBytes)
      : client_(std::move(client)), name_(std::move(name)), part_bytes_(part_bytes) {}

  const std::string& name() const override { return name_; }
  absl::Status Put(const std::string& key, const std::function<absl::Status(const ByteSink&)>& write) override;
  absl::StatusOr<std::vector<std::byte>> Get(const std::string& key) override;
  absl::StatusOr<BlobInfo> Stat(const std::string& key) override;
  absl::Status Remove(const std::string& key) override;
  absl::Status Quarantine(const std::string& key) override;
  absl::StatusOr<std::vector<BlobInfo>> List(const std::string& prefix, const std::string& after,
                                             int64_t limit) override;

 private:
  class PartWriter;
  struct Head;
  // NOT_FOUND.
  absl::StatusOr<Head> ReadHead(const std::string& key);
  // NOT_FOUND: a part has gone.
  absl::StatusOr<std::vector<std::byte>> ReadParts(const std::string& key, const Head& head);

  const std::shared_ptr<RedisClient> client_;
  const std::string name_;
  const size_t part_bytes_;
};

}  // namespace statehouse
