#include "models/tokenizer/fingerprint.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace statehouse {

uint64_t Fingerprint::Value() const { return XXH3_64bits(bytes_.data(), bytes_.size()); }

}  // namespace statehouse
