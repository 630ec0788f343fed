// The part of OpenSharedStore() that speaks to Redis. Private to engine/sessions. Thread-safety: free function.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/sessions/shared_store.h"

namespace statehouse {

// `url` begins with "redis://".
absl::StatusOr<SharedStore> OpenRedisStore(const std::string& url);

}  // namespace statehouse
