#include "models/content_hash.h"

// Header only: one hash needs no library at run time.
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace statehouse {

struct ContentHash::State {
  XXH3_state_t xxh3;
};

ContentHash::ContentHash() : state_(std::make_unique<State>()) { XXH3_64bits_reset(&state_->xxh3); }
ContentHash::~ContentHash() = default;

void ContentHash::AddBytes(const void* data, int64_t size) {
  XXH3_64bits_update(&state_->xxh3, &size, sizeof(size));
  XXH3_64bits_update(&state_->xxh3, data, static_cast<size_t>(size));
}

uint64_t ContentHash::Digest() const { return XXH3_64bits_digest(&state_->xxh3); }

}  // namespace statehouse
