#include "models/identity_hash.h"

#include <bit>

#include "models/content_hash.h"

namespace statehouse {

uint64_t IdentityHash(const ModelConfig& config, const kernels::RetentionLayout& layout, uint64_t weights_hash) {
  ContentHash hash;
  hash.AddText(FamilyName(config.family));
  for (int64_t number :
       {config.hidden_size, config.intermediate_size, config.num_layers, config.vocab_size, int64_t{config.heads_q},
        int64_t{config.heads_kv}, int64_t{config.head_dim}, int64_t{config.degree}, int64_t{config.use_bias},
        layout.shape().chunk, layout.shape().switch_over}) {
    hash.AddNumber(static_cast<uint64_t>(number));
  }
  hash.AddNumber(std::bit_cast<uint64_t>(config.rope_theta));
  hash.AddNumber(std::bit_cast<uint32_t>(config.norm_epsilon));
  hash.AddNumber(weights_hash);
  return hash.Digest();
}

}  // namespace statehouse
