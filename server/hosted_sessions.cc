#include "server/hosted_sessions.h"

#include <unistd.h>

#include <array>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/sessions/local_archive.h"
#include "engine/sessions/shared_store.h"
#include "engine/state/file_layer.h"
#include "engine/state/folder_blobs.h"

namespace statehouse {
namespace {

// Unique among the servers that share a store, and among this one's lives: in containers, host names and process ids
// come again.
std::string DefaultReplicaId() {
  std::array<char, 256> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  return absl::StrCat(host.data(), "-", getpid(), "-", absl::Hex(std::random_device()(), absl::kZeroPad8));
}

}  // namespace

absl::Status CheckSessionSettings(const SessionSettings& settings) {
  const bool is_lasting = !settings.dir.empty() || !settings.store.empty();
  const bool wants_lasting = settings.durability == Durability::kAsync || settings.durability == Durability::kSync;
  if (wants_lasting && !is_lasting) {
    return absl::InvalidArgumentError(absl::StrCat("--session-durability: ", DurabilityName(settings.durability),
                                                   " needs somewhere to write; give --session-dir or --session-store"));
  }
  if (settings.lease < absl::Seconds(1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--session-lease: ", absl::FormatDuration(settings.lease), "; expected at least 1s"));
  }
  if (settings.replica_id.size() > 128) {
    return absl::InvalidArgumentError("--replica-id: expected at most 128 bytes");
  }
  return absl::OkStatus();
}

absl::Status CheckSessionRoom(const SessionSettings& settings, const SlotShape& shape) {
  const int64_t least = shape.layout.UsedHeadFloats(1) * shape.num_regions() * static_cast<int64_t>(sizeof(float));
  const struct {
    const char* flag;
    int64_t bytes;
    int64_t least;
    const char* what;
  } rooms[] = {
      {"--snapshot-host-memory", settings.host_bytes, least, "which the shortest snapshot of this model takes"},
      {"--snapshot-disk-space", settings.disk_bytes, least, "which the shortest snapshot of this model takes"},
      {"--max-session-bytes-per-principal", settings.max_bytes_per_principal, shape.bytes(),
       "for which a turn must find room: a snapshot of this model takes up to as many"},
  };
  for (const auto& room : rooms) {
    if (room.bytes == 0 || room.bytes >= room.least) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(room.flag, ": ", room.bytes, " bytes; expected 0 or at least ", room.least, ", ", room.what));
  }
  return absl::OkStatus();
}

HostedSessions::~HostedSessions() = default;

absl::Status HostedSessions::OpenTiers(const SessionSettings& settings, const Fingerprint& here, const SlotShape& shape,
                                       std::shared_ptr<SnapshotMemory> memory) {
  if (!settings.store.empty()) {
    auto shared = OpenSharedStore(settings.store);
    if (!shared.ok()) return shared.status();
    archive_ = std::move(shared->archive);
    shared_blobs_ = std::move(shared->blobs);
    warnings_ = std::move(shared->warnings);
    place_ = shared->where;
  }
  if (!settings.dir.empty()) {
    FileLayer* const files = FileLayer::Posix();
    // Beside a shared store the folder is a tier of snapshots alone.
    if (archive_ == nullptr) {
      // First of all: it takes the folder for this process.
      auto local = LocalArchive::Open(files, settings.dir);
      if (!local.ok()) return local.status();
      if (!(*local)->repairs().empty()) warnings_.push_back((*local)->repairs());
      archive_ = *std::move(local);
      place_ = settings.dir;
    }
    auto disk = FolderBlobs::Open(files, absl::StrCat(settings.dir, "/snapshots"), "disk", /*shared=*/false);
    if (!disk.ok()) return disk.status();
    disk_ = *std::move(disk);
  }
  SnapshotVaultOptions options;
  options.host_bytes = host_bytes_ = settings.host_bytes;
  options.disk_bytes = settings.disk_bytes;
  options.memory = std::move(memory);
  auto vault = SnapshotVault::Create(options, here, shape, disk_.get(), shared_blobs_.get());
  if (!vault.ok()) return vault.status();
  vault_ = *std::move(vault);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<HostedSessions>> HostedSessions::Open(const SessionSettings& settings,
                                                                     const Fingerprint& here, const SlotShape& shape,
                                                                     int64_t chunk,
                                                                     std::shared_ptr<SnapshotMemory> memory) {
  if (absl::Status status = CheckSessionSettings(settings); !status.ok()) return status;
  if (absl::Status status = CheckSessionRoom(settings, shape); !status.ok()) return status;
  std::unique_ptr<HostedSessions> sessions(new HostedSessions);
  if (absl::Status status = sessions->OpenTiers(settings, here, shape, std::move(memory)); !status.ok()) return status;
  SessionStoreOptions options;
  options.chunk = chunk;
  options.max_snapshots = settings.max_checkpoints;
  options.max_sessions_per_principal = settings.max_sessions_per_principal;
  options.max_bytes_per_principal = settings.max_bytes_per_principal;
  options.snapshot_bytes = shape.bytes();
  options.archive = sessions->archive_.get();
  options.vault = sessions->vault_.get();
  options.replica_id = settings.replica_id.empty() ? DefaultReplicaId() : settings.replica_id;
  options.lease = settings.lease;
  options.default_durability = settings.durability;
  options.async_lag = settings.async_lag;
  options.max_replay_tokens = settings.max_replay_tokens;
  options.is_batch_invariant = here.numeric.is_batch_invariant;
  options.on_upkeep_failure = settings.on_upkeep_failure;
  auto store = SessionStore::Open(options);
  if (!store.ok()) return store.status();
  sessions->store_ = *std::move(store);
  sessions->durability_ = settings.durability != Durability::kDefault ? settings.durability
                          : sessions->archive_ != nullptr             ? Durability::kSync
                                                                      : Durability::kMemory;
  return sessions;
}

std::string HostedSessions::Describe() const {
  if (place_.empty()) return "in memory, lost with the process (--session-dir keeps them)";
  return absl::StrCat("in ", place_, ", ", DurabilityName(durability_));
}

}  // namespace statehouse
