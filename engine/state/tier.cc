#include "engine/state/snapshot_vault.h"

namespace statehouse {

const char* TierName(Tier tier) {
  switch (tier) {
    case Tier::kNone:
      return "none";
    case Tier::kDevice:
      return "device";
    case Tier::kHost:
      return "host";
    case Tier::kDisk:
      return "disk";
    case Tier::kStore:
      return "store";
  }
  return "unknown";
}

}  // namespace statehouse
