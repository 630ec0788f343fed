#include "engine/state/snapshot_format.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace statehouse::snapshot_format {

uint64_t Checksum(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

struct RunningChecksum::State {
  XXH3_state_t xxh3;
};

RunningChecksum::RunningChecksum() : state_(std::make_unique<State>()) { Restart(); }
RunningChecksum::~RunningChecksum() = default;
void RunningChecksum::Restart() { XXH3_64bits_reset(&state_->xxh3); }
void RunningChecksum::Add(std::span<const std::byte> bytes) {
  XXH3_64bits_update(&state_->xxh3, bytes.data(), bytes.size());
}
uint64_t RunningChecksum::value() const { return XXH3_64bits_digest(&state_->xxh3); }

}  // namespace statehouse::snapshot_format
