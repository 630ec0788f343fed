#include "server/convert_session.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/errors.h"
#include "server/field_checks.h"

namespace statehouse {
namespace {

double UnixSeconds(absl::Time time) { return absl::ToDoubleSeconds(time - absl::UnixEpoch()); }

absl::StatusOr<Durability> ToDurability(const std::string& field, v1::Durability durability) {
  switch (durability) {
    case v1::DURABILITY_UNSPECIFIED:
      return Durability::kDefault;
    case v1::DURABILITY_MEMORY:
      return Durability::kMemory;
    case v1::DURABILITY_ASYNC:
      return Durability::kAsync;
    case v1::DURABILITY_SYNC:
      return Durability::kSync;
    default:
      return InvalidField(field, absl::StrCat(static_cast<int>(durability)), "memory, async or sync");
  }
}

// A century is for ever.
constexpr double kMostSeconds = 100.0 * 365 * 86400;

absl::StatusOr<absl::Duration> ToTtl(const std::string& field, double seconds, bool may_be_zero) {
  const bool is_never = may_be_zero && seconds == 0;
  if (is_never) return absl::InfiniteDuration();
  if (!(seconds > 0) || !std::isfinite(seconds)) {
    return InvalidField(field, absl::StrCat(seconds), may_be_zero ? "at least 0 seconds" : "more than 0 seconds");
  }
  return seconds >= kMostSeconds ? absl::InfiniteDuration() : absl::Seconds(seconds);
}

absl::Status CheckLabels(const std::string& field, const google::protobuf::Map<std::string, std::string>& labels) {
  for (const auto& [key, value] : labels) {
    if (absl::Status status = CheckUtf8(field, key); !status.ok()) return status;
    if (absl::Status status = CheckUtf8(field, value); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

v1::CacheTier ToProto(Tier tier) {
  switch (tier) {
    case Tier::kNone:
      return v1::CACHE_TIER_UNSPECIFIED;
    case Tier::kDevice:
      return v1::CACHE_TIER_DEVICE;
    case Tier::kHost:
      return v1::CACHE_TIER_HOST;
    case Tier::kDisk:
      return v1::CACHE_TIER_DISK;
    case Tier::kStore:
      return v1::CACHE_TIER_STORE;
  }
  return v1::CACHE_TIER_UNSPECIFIED;
}

v1::Exactness ToProto(Exactness exactness) {
  return exactness == Exactness::kExact ? v1::EXACTNESS_EXACT : v1::EXACTNESS_CONTINUED;
}

v1::Durability ToProto(Durability durability) {
  switch (durability) {
    case Durability::kDefault:
      return v1::DURABILITY_UNSPECIFIED;
    case Durability::kMemory:
      return v1::DURABILITY_MEMORY;
    case Durability::kAsync:
      return v1::DURABILITY_ASYNC;
    case Durability::kSync:
      return v1::DURABILITY_SYNC;
  }
  return v1::DURABILITY_UNSPECIFIED;
}

void ToProto(const SessionInfo& info, v1::Session* out) {
  out->set_id(info.id);
  out->set_name(info.spec.name);
  out->mutable_labels()->insert(info.spec.labels.begin(), info.spec.labels.end());
  out->set_durability(ToProto(info.spec.durability));
  if (info.spec.ttl != absl::InfiniteDuration()) out->set_ttl_seconds(absl::ToDoubleSeconds(info.spec.ttl));
  out->set_pinned(info.spec.pinned);
  out->set_position(info.num_tokens);
  for (const SessionCheckpoint& checkpoint : info.checkpoints) {
    v1::SessionCheckpoint* to = out->add_checkpoints();
    to->set_position(checkpoint.position);
    to->set_bytes(checkpoint.bytes);
    to->set_tier(ToProto(checkpoint.tier));
  }
  out->set_created(UnixSeconds(info.created));
  out->set_last_turn(UnixSeconds(info.last_turn));
  out->set_busy(info.busy);
  out->set_turns(info.turns);
  out->set_lease_owner(info.lease.owner);
  if (!info.lease.owner.empty()) {
    out->set_lease_seconds(std::max(0.0, absl::ToDoubleSeconds(info.lease.left)));
  }
  out->set_shared(info.spec.shared);
  out->set_damage(info.damage);
  out->set_snapshot_bytes(info.snapshot_bytes);
}

void ToProto(const SnapshotVault::Removed& removed, google::protobuf::RepeatedPtrField<v1::TierCount>* out) {
  for (int tier = 0; tier < kNumTiers; ++tier) {
    if (removed.snapshots[tier] == 0 && removed.bytes[tier] == 0) continue;
    v1::TierCount* count = out->Add();
    count->set_tier(ToProto(static_cast<Tier>(tier)));
    count->set_snapshots(removed.snapshots[tier]);
    count->set_bytes(removed.bytes[tier]);
  }
}

absl::StatusOr<SessionSpec> ToSpec(std::string_view field, const v1::CreateSessionRequest& request,
                                   const std::string& principal) {
  const std::string prefix(field);
  SessionSpec spec;
  spec.principal = principal;
  if (absl::Status status = CheckUtf8(prefix + "name", request.name()); !status.ok()) return status;
  if (absl::Status status = CheckLabels(prefix + "labels", request.labels()); !status.ok()) return status;
  spec.name = request.name();
  spec.labels.insert(request.labels().begin(), request.labels().end());
  absl::StatusOr<Durability> durability = ToDurability(prefix + "durability", request.durability());
  if (!durability.ok()) return durability.status();
  spec.durability = *durability;
  if (request.has_ttl_seconds()) {
    absl::StatusOr<absl::Duration> ttl = ToTtl(prefix + "ttl_seconds", request.ttl_seconds(), /*may_be_zero=*/false);
    if (!ttl.ok()) return ttl.status();
    spec.ttl = *ttl;
  }
  spec.pinned = request.pinned();
  spec.shared = request.shared();
  return spec;
}

absl::StatusOr<SessionChange> ToChange(const v1::UpdateSessionRequest& request) {
  SessionChange change;
  if (request.has_name()) {
    if (absl::Status status = CheckUtf8("name", request.name()); !status.ok()) return status;
    change.name = request.name();
  }
  if (request.has_labels()) {
    if (absl::Status status = CheckLabels("labels", request.labels().labels()); !status.ok()) return status;
    change.labels.emplace(request.labels().labels().begin(), request.labels().labels().end());
  }
  if (request.has_ttl_seconds()) {
    absl::StatusOr<absl::Duration> ttl = ToTtl("ttl_seconds", request.ttl_seconds(), /*may_be_zero=*/true);
    if (!ttl.ok()) return ttl.status();
    change.ttl = *ttl;
  }
  if (request.has_pinned()) change.pinned = request.pinned();
  if (request.has_shared()) change.shared = request.shared();
  absl::StatusOr<Durability> durability = ToDurability("durability", request.durability());
  if (!durability.ok()) return durability.status();
  if (*durability != Durability::kDefault) change.durability = *durability;
  return change;
}

}  // namespace statehouse
