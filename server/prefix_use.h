// One call's part in the shared prefixes: what its CacheUse asks for, what was found, and what wire, log and cache are
// told of it. Thread-safety: one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "engine/event_stream.h"
#include "engine/state/prefix_cache.h"
#include "server/log.h"
#include "server/served_model.h"
#include "statehouse/v1/generation.pb.h"

namespace statehouse {

class PrefixUse {
 public:
  // May Prepare() block on a disk or a network?
  static bool MayBlock(const v1::GenerateRequest& wire, const ServedModel& model, const std::string& principal,
                       const Request& request);
  // Checks wire.cache, looks the prompt up and orders snapshots: before the engine is given `request`. May block on a
  // disk or a network. INVALID_ARGUMENT names the field.
  absl::Status Prepare(const v1::GenerateRequest& wire, const ServedModel& model, const std::string& principal,
                       Request* request);
  // Must Keep() be told the answer's ids?
  bool wants_answer() const { return use_ != nullptr && use_->wants_answer(); }
  // Puts the report into Started and Done.
  void AddReport(v1::GenerateEvent* event) const;
  // Hands over the snapshots that were taken. REQUIRES: the last event of `stream` was taken.
  void Keep(const EventStream& stream, std::span<const int32_t> answer);
  void AddFields(Log::Fields* fields) const;

 private:
  PrefixReport report_;
  std::unique_ptr<PrefixCache::Use> use_;  // null: not looked up
};

v1::CacheMiss ToProto(MissReason reason);

}  // namespace statehouse
