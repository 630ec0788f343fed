#include "engine/sessions/redis_store.h"

#include <cstdlib>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "engine/sessions/redis_archive.h"
#include "engine/state/redis_blobs.h"
#include "engine/state/redis_client.h"

namespace statehouse {
namespace {

constexpr char kField[] = "--session-store";
constexpr char kScheme[] = "redis://";
constexpr char kPasswordVariable[] = "STATEHOUSE_REDIS_PASSWORD";
constexpr int kMaxDatabase = 16383;

// What is said of an address must not show the password in it.
absl::Status BadAddress(const std::string& part, const std::string& expected) {
  return BadField(kField, absl::StrCat("\"", part, "\" is not allowed in redis://[user[:password]@]host[:port][/db]; ",
                                       expected, " is expected"));
}

bool ParseNumber(const std::string& text, int least, int greatest, int* number) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos && absl::SimpleAtoi(text, number) &&
         *number >= least && *number <= greatest;
}

absl::StatusOr<RedisOptions> ParseAddress(const std::string& url) {
  RedisOptions options;
  std::string rest = url.substr(std::string(kScheme).size());
  if (const size_t at = rest.rfind('@'); at != std::string::npos) {
    options.user = rest.substr(0, at);
    rest = rest.substr(at + 1);
    if (const size_t colon = options.user.find(':'); colon != std::string::npos) {
      options.password = options.user.substr(colon + 1);
      options.user.resize(colon);
    }
  }
  if (const size_t slash = rest.find('/'); slash != std::string::npos) {
    const std::string database = rest.substr(slash + 1);
    if (!database.empty() && !ParseNumber(database, 0, kMaxDatabase, &options.database)) {
      return BadAddress(database, absl::StrCat("the number of a database, 0 to ", kMaxDatabase, ","));
    }
    rest.resize(slash);
  }
  // [::1]:6379 is an address with colons of its own.
  const size_t colon = rest.starts_with('[') ? rest.find(':', rest.find(']')) : rest.find(':');
  if (colon != std::string::npos) {
    if (!ParseNumber(rest.substr(colon + 1), 1, 65535, &options.port)) {
      return BadAddress(rest.substr(colon + 1), "a port, 1 to 65535,");
    }
    rest.resize(colon);
  }
  if (rest.starts_with('[') && rest.ends_with(']')) rest = rest.substr(1, rest.size() - 2);
  if (rest.empty()) return BadAddress(rest, "the name or address of a host");
  options.host = rest;
  if (const char* password = std::getenv(kPasswordVariable); options.password.empty() && password != nullptr) {
    options.password = password;
  }
  return options;
}

// What Redis promises is up to its settings; what they may cost is said once.
std::vector<std::string> WarningsOf(RedisClient* client) {
  struct Setting {
    const char* name;
    const char* wanted;
    const char* otherwise;
  };
  static constexpr Setting kSettings[] = {
      {"appendonly", "yes", "a restart of Redis loses sessions that were acknowledged"},
      {"appendfsync", "always", "a power loss there may cost the last second of acknowledged turns"},
      {"maxmemory-policy", "noeviction", "Redis may throw sessions away when its memory is full"},
  };
  std::vector<std::string> warnings;
  for (const Setting& setting : kSettings) {
    const auto reply = client->Run({"CONFIG", "GET", setting.name});
    const std::string value = reply.ok() ? reply->TextAt(1) : "not known: CONFIG GET is not allowed";
    if (value == setting.wanted) continue;
    warnings.push_back(absl::StrCat(client->where(), ": ", setting.name, " is ", value, ", not ", setting.wanted, ": ",
                                    setting.otherwise));
  }
  return warnings;
}

}  // namespace

absl::StatusOr<SharedStore> OpenRedisStore(const std::string& url) {
  const auto options = ParseAddress(url);
  if (!options.ok()) return options.status();
  const auto client = std::make_shared<RedisClient>(*options);
  if (auto reply = client->Run({"PING"}); !reply.ok()) return reply.status();
  SharedStore store;
  store.archive = std::make_unique<RedisArchive>(client);
  store.blobs = std::make_unique<RedisBlobs>(client, "store");
  store.where = client->where();
  store.warnings = WarningsOf(client.get());
  return store;
}

}  // namespace statehouse
