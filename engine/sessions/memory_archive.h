// A SessionArchive that lives as long as the process: for sessions of durability `memory`, and where there is no other.
// Thread-safety: every method may be called from any thread; none blocks.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "engine/sessions/one_server_archive.h"

namespace statehouse {

class MemoryArchive : public OneServerArchive {
 public:
  absl::Status PutEntry(const SessionEntry& entry) override;
  absl::Status Remove(std::string_view id, int64_t fence) override;
  absl::Status Append(std::string_view id, int64_t number, int64_t fence, std::string_view record, bool sync) override;
  absl::StatusOr<Records> Read(std::string_view id) override;
  absl::Status Compact(std::string_view id, int64_t number, int64_t fence, std::string_view record) override;
  absl::Status Sync() override { return absl::OkStatus(); }

 private:
  std::map<std::string, Records, std::less<>> records_;  // by id; guarded by mu_
};

}  // namespace statehouse
