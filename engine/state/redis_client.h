// Commands to one Redis or Valkey server, by as many connections as there are callers at once. A server that does not
// answer is not asked again for a while.
//
// Errors: UNAVAILABLE (no answer in time, loading, a replica: whether the command took effect is not known),
// RESOURCE_EXHAUSTED (its memory is full), PERMISSION_DENIED (password), INTERNAL (anything else that it says). A
// command is sent a second time if a connection that had been idle turns out to be closed, so it must bear being
// repeated. Thread-safety: any thread.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/state/back_off.h"

struct redisContext;

namespace statehouse {

struct RedisOptions {
  std::string host = "127.0.0.1";
  int port = 6379;
  int database = 0;
  std::string user;      // empty: the default user
  std::string password;  // empty: none
  absl::Duration connect_timeout = absl::Seconds(2);
  absl::Duration answer_timeout = absl::Seconds(5);
  absl::Duration first_pause = absl::Milliseconds(100);  // of the back-off
  absl::Duration longest_pause = absl::Seconds(5);
};

struct RedisReply {
  enum class Kind { kNil, kText, kInteger, kList };
  Kind kind = Kind::kNil;
  std::string text;
  int64_t integer = 0;
  std::vector<RedisReply> items;

  bool is_nil() const { return kind == Kind::kNil; }
  // The text of item `index`; empty if there is none.
  const std::string& TextAt(size_t index) const;
  // The number that item `index` is, as integer or decimal text; 0 if it is none.
  int64_t NumberAt(size_t index) const;
};

class RedisClient {
 public:
  explicit RedisClient(const RedisOptions& options);
  ~RedisClient();

  // Blocks for the connect and answer timeouts at most.
  absl::StatusOr<RedisReply> Run(const std::vector<std::string_view>& command);
  // A Lua script that sees `keys` as KEYS and `arguments` as ARGV.
  absl::StatusOr<RedisReply> Script(std::string_view script, const std::vector<std::string>& keys,
                                    const std::vector<std::string_view>& arguments);
  // "redis://host:port/database".
  const std::string& where() const { return where_; }

 private:
  struct Closer {
    void operator()(redisContext* context) const;
  };
  using Connection = std::unique_ptr<redisContext, Closer>;

  absl::StatusOr<Connection> Connect();
  absl::StatusOr<RedisReply> RunOn(redisContext* connection, const std::vector<std::string_view>& command);
  Connection TakeIdle();
  // After a success keeps the connection for the next one; after a failure backs off.
  void Finish(Connection connection, const absl::Status& status);

  const RedisOptions options_;
  const std::string where_;
  std::mutex mutex_;
  std::vector<Connection> idle_;
  BackOff health_;
};

}  // namespace statehouse
