#include "engine/state/redis_client.h"

#include <hiredis/hiredis.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace statehouse {
namespace {

constexpr size_t kMaxIdle = 16;

// hiredis writes to sockets that may be closed; that is to be an error, whatever the program does with SIGPIPE.
class NoPipeSignal {
 public:
  NoPipeSignal() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  NoPipeSignal(const NoPipeSignal&) = delete;
  NoPipeSignal& operator=(const NoPipeSignal&) = delete;
  ~NoPipeSignal() {
    if (sigismember(&before_, SIGPIPE) == 0) {
      const timespec now = {};
      while (sigtimedwait(&pipe_, nullptr, &now) > 0) {
      }
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t pipe_;
  sigset_t before_;
};

RedisReply ReplyOf(const redisReply& raw) {
  RedisReply reply;
  switch (raw.type) {
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
    case REDIS_REPLY_ERROR:
      reply.kind = RedisReply::Kind::kText;
      reply.text.assign(raw.str, static_cast<size_t>(raw.len));
      break;
    case REDIS_REPLY_INTEGER:
      reply.kind = RedisReply::Kind::kInteger;
      reply.integer = raw.integer;
      break;
    case REDIS_REPLY_ARRAY:
      reply.kind = RedisReply::Kind::kList;
      for (size_t item = 0; item < raw.elements; ++item) reply.items.push_back(ReplyOf(*raw.element[item]));
      break;
    default:
      break;
  }
  return reply;
}

absl::Status ErrorOf(const std::string& where, const std::string& said) {
  const std::string text = absl::StrCat(where, ": ", said);
  const std::string word = said.substr(0, said.find(' '));
  if (word == "OOM") {
    return absl::ResourceExhaustedError(absl::StrCat(text, "; give it more memory, or delete sessions"));
  }
  if (word == "NOAUTH" || word == "WRONGPASS" || word == "NOPERM") return absl::PermissionDeniedError(text);
  for (const char* passing : {"LOADING", "BUSY", "MASTERDOWN", "READONLY", "MISCONF", "TRYAGAIN", "CLUSTERDOWN"}) {
    if (word == passing) return absl::UnavailableError(text);
  }
  return absl::InternalError(text);
}

// The connection is of no use any more. `error`: errno of the moment.
absl::Status BrokenOf(const std::string& where, const redisContext& connection, int error, absl::Duration timeout) {
  const bool timed_out =
      connection.err == REDIS_ERR_IO && (error == EAGAIN || error == ETIMEDOUT || error == EINPROGRESS);
  return timed_out
             ? absl::DeadlineExceededError(absl::StrCat(where, ": no answer within ", absl::FormatDuration(timeout)))
             : absl::UnavailableError(absl::StrCat(where, ": ", connection.errstr));
}

absl::Status Unavailable(const absl::Status& status) {
  return absl::IsDeadlineExceeded(status) ? absl::UnavailableError(status.message()) : status;
}

}  // namespace

const std::string& RedisReply::TextAt(size_t index) const {
  static const std::string kNone;
  return index < items.size() ? items[index].text : kNone;
}

int64_t RedisReply::NumberAt(size_t index) const {
  if (index >= items.size()) return 0;
  if (items[index].kind == Kind::kInteger) return items[index].integer;
  int64_t number = 0;
  return absl::SimpleAtoi(items[index].text, &number) ? number : 0;
}

void RedisClient::Closer::operator()(redisContext* context) const { redisFree(context); }

RedisClient::RedisClient(const RedisOptions& options)
    : options_(options),
      where_(absl::StrCat("redis://", options.host, ":", options.port, "/", options.database)),
      health_(options.first_pause, options.longest_pause) {}

RedisClient::~RedisClient() = default;

absl::StatusOr<RedisClient::Connection> RedisClient::Connect() {
  Connection connection(
      redisConnectWithTimeout(options_.host.c_str(), options_.port, absl::ToTimeval(options_.connect_timeout)));
  if (connection == nullptr) return absl::UnavailableError(absl::StrCat(where_, ": no memory to connect"));
  if (connection->err != 0) return BrokenOf(where_, *connection, errno, options_.connect_timeout);
  redisSetTimeout(connection.get(), absl::ToTimeval(options_.answer_timeout));
  if (!options_.password.empty()) {
    std::vector<std::string_view> command = {"AUTH"};
    if (!options_.user.empty()) command.push_back(options_.user);
    command.push_back(options_.password);
    if (auto reply = RunOn(connection.get(), command); !reply.ok()) return reply.status();
  }
  if (options_.database != 0) {
    auto reply = RunOn(connection.get(), {"SELECT", absl::StrCat(options_.database)});
    if (!reply.ok()) return reply.status();
  }
  return connection;
}

absl::StatusOr<RedisReply> RedisClient::RunOn(redisContext* connection, const std::vector<std::string_view>& command) {
  std::vector<const char*> parts;
  std::vector<size_t> sizes;
  for (const std::string_view part : command) {
    parts.push_back(part.data());
    sizes.push_back(part.size());
  }
  const NoPipeSignal no_signal;
  struct FreeReply {
    void operator()(redisReply* reply) const { freeReplyObject(reply); }
  };
  const std::unique_ptr<redisReply, FreeReply> raw(static_cast<redisReply*>(
      redisCommandArgv(connection, static_cast<int>(parts.size()), parts.data(), sizes.data())));
  if (raw == nullptr) return BrokenOf(where_, *connection, errno, options_.answer_timeout);
  RedisReply reply = ReplyOf(*raw);
  if (raw->type == REDIS_REPLY_ERROR) return ErrorOf(where_, reply.text);
  return reply;
}

RedisClient::Connection RedisClient::TakeIdle() {
  const std::lock_guard lock(mutex_);
  if (idle_.empty()) return nullptr;
  Connection connection = std::move(idle_.back());
  idle_.pop_back();
  return connection;
}

void RedisClient::Finish(Connection connection, const absl::Status& status) {
  std::vector<Connection> closed;  // outside of the lock
  const std::lock_guard lock(mutex_);
  if (connection != nullptr && connection->err == 0) {
    health_.Succeeded();
    if (idle_.size() < kMaxIdle) idle_.push_back(std::move(connection));
    return;
  }
  health_.Failed(absl::Now(), status);
  closed.swap(idle_);
}

absl::StatusOr<RedisReply> RedisClient::Run(const std::vector<std::string_view>& command) {
  {
    const std::lock_guard lock(mutex_);
    if (!health_.MayTry(absl::Now())) return absl::UnavailableError(health_.Describe(absl::Now()));
  }
  if (Connection idle = TakeIdle(); idle != nullptr) {
    auto reply = RunOn(idle.get(), command);
    // Closed while it was idle, as by a restart: a new one tells whether the server is there.
    const bool was_closed = idle->err != 0 && !absl::IsDeadlineExceeded(reply.status());
    if (!was_closed) {
      Finish(std::move(idle), reply.status());
      if (!reply.ok()) return Unavailable(reply.status());
      return reply;
    }
  }
  auto connection = Connect();
  if (!connection.ok()) {
    // A wrong password is an answer, too; asking again and again would not help.
    Finish(nullptr, connection.status());
    return Unavailable(connection.status());
  }
  auto reply = RunOn(connection->get(), command);
  Finish(*std::move(connection), reply.status());
  if (!reply.ok()) return Unavailable(reply.status());
  return reply;
}

absl::StatusOr<RedisReply> RedisClient::Script(std::string_view script, const std::vector<std::string>& keys,
                                               const std::vector<std::string_view>& arguments) {
  const std::string num_keys = absl::StrCat(keys.size());
  std::vector<std::string_view> command = {"EVAL", script, num_keys};
  command.insert(command.end(), keys.begin(), keys.end());
  command.insert(command.end(), arguments.begin(), arguments.end());
  return Run(command);
}

}  // namespace statehouse
