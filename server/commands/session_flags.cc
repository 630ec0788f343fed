#include "server/commands/session_flags.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>
#include <system_error>

#include "clients/flags/choices.h"
#include "clients/flags/number_flags.h"
#include "server/commands/model_flags.h"

namespace statehouse {
namespace {

namespace fs = std::filesystem;

constexpr char kGroup[] = "Sessions";

// A file in the folder's place is told with its flag; what else is wrong with a place shows when it is opened.
CLI::Validator NoFile(const char* expected) {
  return CLI::Validator(
      [expected](std::string& path) {
        std::error_code ignored;
        const bool is_file = fs::exists(path, ignored) && !fs::is_directory(path, ignored);
        return is_file ? std::string(NotAllowed(path, expected).message()) : "";
      },
      "");
}

void AddPlaceFlags(CLI::App& command, SessionSettings* settings) {
  command
      .add_option("--session-dir", settings->dir,
                  "Folder of this server's sessions: journals and snapshots. Without it and --session-store, sessions "
                  "live as long as the process")
      ->check(NoFile("a folder, which is made if it is not there"))
      ->type_name("DIR")
      ->group(kGroup);
  command
      .add_option("--session-store", settings->store,
                  "What replicas share, so that any of them continues any session: a folder, or redis://HOST:PORT")
      ->check(NoFile("a folder, which is made if it is not there, or redis://HOST:PORT"))
      ->type_name("URL")
      ->group(kGroup);
  command
      .add_option("--replica-id", settings->replica_id,
                  "This server's name among those that share a store; by default host name, process id and "
                  "random digits")
      ->type_name("ID")
      ->group(kGroup);
  AddDurationFlag(command, "--session-lease", &settings->lease,
                  "With a shared store: how long a session stays with a server that no longer answers")
      ->group(kGroup);
}

void AddDurabilityFlags(CLI::App& command, SessionSettings* settings) {
  const auto set_durability = [settings](const std::string& name) {
    settings->durability = name == "memory"  ? Durability::kMemory
                           : name == "async" ? Durability::kAsync
                                             : Durability::kSync;
  };
  command
      .add_option_function<std::string>(
          "--session-durability", set_durability,
          "Of sessions that do not say: sync (an acknowledged turn survives a crash), async (the last "
          "--session-async-lag may be lost), memory. Default: sync where there is a place for them, else memory")
      ->type_name("KIND")
      ->check(OneOf({"memory", "async", "sync"}))
      ->group(kGroup);
  AddDurationFlag(command, "--session-async-lag", &settings->async_lag,
                  "With durability async: how much a crash may cost at most")
      ->group(kGroup);
}

void AddLimitFlags(CLI::App& command, SessionSettings* settings) {
  const auto add = [&](const char* name, int64_t* value, const char* help, int64_t least) {
    AddNumber(command, name, value, help, {.least = least, .most = int64_t{1} << 53})->group(kGroup);
  };
  add("--session-checkpoints", &settings->max_checkpoints,
      "Snapshots kept of a session, its newest included: more make going back cheaper", 1);
  add("--max-replay-tokens", &settings->max_replay_tokens,
      "With durability sync: the most tokens that are computed again after a crash", 1);
  add("--max-sessions-per-principal", &settings->max_sessions_per_principal, "Sessions of one caller; 0: no limit", 0);
  AddBytesFlag(command, "--max-session-bytes-per-principal", &settings->max_bytes_per_principal,
               "Snapshots of one caller's sessions; 0: no limit")
      ->group(kGroup);
  AddBytesFlag(command, "--snapshot-host-memory", &settings->host_bytes,
               "Memory for snapshots; those that lie on disk or in the store, too, leave it first")
      ->group(kGroup);
  AddBytesFlag(command, "--snapshot-disk-space", &settings->disk_bytes,
               "Most bytes of snapshots in --session-dir; 0: no bound")
      ->group(kGroup);
}

}  // namespace

void AddSessionFlags(CLI::App& command, SessionSettings* settings) {
  AddPlaceFlags(command, settings);
  AddDurabilityFlags(command, settings);
  AddLimitFlags(command, settings);
}

}  // namespace statehouse
