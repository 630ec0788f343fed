// One block per choice. What a filter keeps is a prefix of the candidates, best first: all whose distance from the
// largest logit is below a bound, and of those at the bound the ones with the lowest ids. The bound is found bit by
// bit, from counts and sums of whole units, which do not depend on their order. No list is sorted.
//
// This file is compiled without contraction (--fmad=false): see choice_math.h.
#include <cfloat>
#include <climits>

#include "kernels/cuda/status.h"
#include "kernels/sampling/choice_math.h"
#include "kernels/sampling/cuda/choose.h"

namespace statehouse::kernels {
namespace {

constexpr int kThreads = 768;
constexpr int kWarps = kThreads / 32;
constexpr unsigned kAll = 0xffffffffu;
constexpr uint32_t kNeverChosen = 0xffffffffu;  // the distance of -infinity and NaN
constexpr int kListed = 2048;                   // candidates of the list
constexpr float kRoom = 1e-3f;                  // more than scores in float are off

struct ChoiceShared {
  uint64_t sums[kWarps];
  unsigned counts[kWarps];
  double scores[kWarps];
  int32_t ids[kWarps];
  float largest;
  int32_t best;
  int32_t bound;  // a score that was reached, as an ordered integer
  int32_t num_listed;
  uint2 list[kListed];  // (distance, id)
};

// Candidates with a distance below `distance`, and of those at it the ids up to `id`.
struct Prefix {
  uint32_t distance = 0x7f7fffffu;  // of finite numbers
  int32_t id = INT_MAX;

  __device__ bool Holds(uint32_t at, int32_t token) const { return at < distance || (at == distance && token <= id); }
};

struct Totals {
  uint64_t units;
  unsigned count;
};

// The sum over a warp of numbers below 2^53.
__device__ __forceinline__ uint64_t WarpSum(uint64_t value) {
  constexpr int kBits = 27;  // 32 of so many bits fit 32 bits
  const unsigned low = __reduce_add_sync(kAll, static_cast<unsigned>(value) & ((1u << kBits) - 1));
  const unsigned high = __reduce_add_sync(kAll, static_cast<unsigned>(value >> kBits));
  return low + (static_cast<uint64_t>(high) << kBits);
}

// Sums over the block, the same in every thread.
__device__ Totals BlockTotals(Totals mine, ChoiceShared& shared) {
  mine.units = WarpSum(mine.units);
  mine.count = __reduce_add_sync(kAll, mine.count);
  __syncthreads();  // the sums before were read
  if (threadIdx.x % 32 == 0) {
    shared.sums[threadIdx.x / 32] = mine.units;
    shared.counts[threadIdx.x / 32] = mine.count;
  }
  __syncthreads();  // warps' sums are there
  Totals all = {0, 0};
#pragma unroll 8
  for (int warp = 0; warp < kWarps; ++warp) all.units += shared.sums[warp], all.count += shared.counts[warp];
  return all;
}

// A float as an integer of the same order.
__device__ __forceinline__ int32_t Ordered(float x) {
  const int32_t bits = __float_as_int(x);
  return bits >= 0 ? bits : bits ^ 0x7fffffff;
}
__device__ __forceinline__ float FromOrdered(int32_t x) { return __int_as_float(x >= 0 ? x : x ^ 0x7fffffff); }

// What one thread found best.
struct Winner {
  double score = -INFINITY;
  int32_t id = INT_MAX;
};

class Choosing {
 public:
  __device__ Choosing(const CudaChoiceArgs& args, const CudaChoice& choice, ChoiceShared& shared, uint32_t* distances)
      : logits_(args.logits + choice.row * args.vocab),
        size_(static_cast<int32_t>(args.vocab)),
        choice_(choice),
        shared_(shared),
        distances_(distances) {}

  // The largest logit and the lowest id that has it.
  __device__ void FindBest() {
    float best = -INFINITY;
    int32_t best_id = INT_MAX;
#pragma unroll 8
    for (int32_t id = threadIdx.x; id < size_; id += kThreads) {
      const float logit = logits_[id];
      if (logit > best) best = logit, best_id = id;
    }
    const auto take = [&](float other, int32_t other_id) {
      if (other > best || (other == best && other_id < best_id)) best = other, best_id = other_id;
    };
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(kAll, best, step);
      const int32_t other_id = __shfl_xor_sync(kAll, best_id, step);
      take(other, other_id);
    }
    if (threadIdx.x % 32 == 0) shared_.scores[threadIdx.x / 32] = best, shared_.ids[threadIdx.x / 32] = best_id;
    __syncthreads();  // warps' bests are there
    if (threadIdx.x == 0) {
      for (int warp = 1; warp < kWarps; ++warp) take(static_cast<float>(shared_.scores[warp]), shared_.ids[warp]);
      shared_.largest = best;
      shared_.best = best_id == INT_MAX ? -1 : best_id;
    }
    __syncthreads();  // the best is there
    largest_ = shared_.largest;
  }

  __device__ void Filter() {
    if (distances_ != nullptr) {
#pragma unroll 4
      for (int32_t id = threadIdx.x; id < size_; id += kThreads) distances_[id] = Distance(id);
      __syncthreads();  // distances are there
    }
    const bool has_top_k = choice_.top_k > 0 && choice_.top_k < size_, has_top_p = choice_.top_p < 1.0;
    if (!has_top_k && !has_top_p) return;
    if (has_top_k && choice_.top_k > kListed) {
      kept_ = Shortest<false>(static_cast<uint64_t>(choice_.top_k));
    } else {
      // Few are kept, mostly: the best go into a list, and all that follows looks at no more than that.
      const Prefix best = Shortest<false>(static_cast<uint64_t>(has_top_k ? choice_.top_k : kListed));
      List([&](uint32_t at, int32_t id) { return best.Holds(at, id); });
      listed_ = true;
      if (has_top_k) kept_ = best;
    }
    if (!has_top_p) return;
    const uint64_t listed = SumOfUnits();
    listed_ = listed_ && has_top_k;
    const uint64_t sum = listed_ ? listed : SumOfUnits();
    const uint64_t target = UnitsToReach(choice_.top_p, sum);
    listed_ = listed_ || (!has_top_k && listed >= target);
    kept_ = Shortest<true>(target);
  }

  // REQUIRES: FindBest() found one.
  __device__ int32_t Draw(bool filtered) {
    if (threadIdx.x == 0) {
      const PhiloxCounter words = ChoiceWords(choice_.seed, choice_.output, choice_.position, shared_.best >> 2);
      shared_.bound = Ordered(__double2float_rd(GumbelFromWord(words[shared_.best & 3])));
    }
    __syncthreads();  // the bound is there
    Winner winner;
    if (listed_) {
      const int32_t rounded = (shared_.num_listed + 31) / 32 * 32;
      for (int32_t i = threadIdx.x; i < rounded; i += kThreads) {
        const bool inside = i < shared_.num_listed;
        const uint2 entry = inside ? shared_.list[i] : make_uint2(kNeverChosen, 0);
        const int32_t id = static_cast<int32_t>(entry.y);
        const PhiloxCounter words = ChoiceWords(choice_.seed, choice_.output, choice_.position, id >> 2);
        Offer(inside && Keeps(entry.x, id), entry.x, id, words[id & 3], &winner);
      }
    } else {
      const int32_t rounded = (size_ + 127) / 128 * 32;  // quads, whole warps
      for (int32_t quad = threadIdx.x; quad < rounded; quad += kThreads) {
        const PhiloxCounter words = ChoiceWords(choice_.seed, choice_.output, choice_.position, quad);
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) {
          const int32_t id = quad * 4 + lane;
          const uint32_t at = id < size_ ? (filtered ? DistanceOf(id) : Distance(id)) : kNeverChosen;
          Offer(at != kNeverChosen && (!filtered || Keeps(at, id)), at, id, words[lane], &winner);
        }
      }
    }
    return Winning(winner);
  }

 private:
  // -z as the bits of a float, so that smaller is better: 0 for the largest logit.
  __device__ uint32_t Distance(int32_t id) const {
    const float logit = logits_[id];
    const float z = logit == largest_ ? 0.0f : __fdiv_rn(logit - largest_, choice_.temperature);
    return z > -INFINITY ? __float_as_uint(z) & 0x7fffffffu : kNeverChosen;
  }
  __device__ uint32_t DistanceOf(int32_t id) const { return distances_ != nullptr ? distances_[id] : Distance(id); }
  static __device__ uint64_t Units(uint32_t at) { return WeightUnits(-__uint_as_float(at)); }
  __device__ bool Keeps(uint32_t at, int32_t id) const {
    if (!kept_.Holds(at, id)) return false;
    return choice_.min_p <= 0.0 || at == 0 || static_cast<double>(Weight(-__uint_as_float(at))) >= choice_.min_p;
  }

  // By all threads of a warp together. What cannot win is skipped, first by a bound that costs nothing, then by its
  // score in float, with room for the rounding of both: that changes no result.
  __device__ void Offer(bool counts, uint32_t at, int32_t id, uint32_t word, Winner* winner) {
    const float z = -__uint_as_float(at);
    const auto bound = [&] { return FromOrdered(*const_cast<volatile int32_t*>(&shared_.bound)); };
    counts = counts && z + (33 - (32 - __clz(~word))) * 0.69316f + kRoom >= bound();
    if (!__any_sync(kAll, counts)) return;
    float about = -INFINITY;
    if (counts) {
      // -log(u), from 1 - u where u is near 1.
      const float rest = (static_cast<float>(~word) + 0.5f) * 0x1p-32f;
      const float minus_log = word >> 31 != 0 ? -log1pf(-rest) : -logf((static_cast<float>(word) + 0.5f) * 0x1p-32f);
      about = z - logf(minus_log);
    }
    const int32_t most = __reduce_max_sync(kAll, Ordered(about - kRoom));
    if (threadIdx.x % 32 == 0 && most > *const_cast<volatile int32_t*>(&shared_.bound)) {
      atomicMax(&shared_.bound, most);
    }
    if (!counts || about + kRoom < fmaxf(bound(), FromOrdered(most))) return;
    const double offered = static_cast<double>(z) + GumbelFromWord(word);
    if (offered < winner->score || (offered == winner->score && id > winner->id)) return;
    winner->score = offered, winner->id = id;
  }

  // Calls take(distance, id) for every candidate, or for those of the list.
  template <typename Take>
  __device__ void ForEach(bool listed, const Take& take) const {
    if (listed) {
      for (int32_t i = threadIdx.x; i < shared_.num_listed; i += kThreads) {
        take(shared_.list[i].x, static_cast<int32_t>(shared_.list[i].y));
      }
    } else {
#pragma unroll 4
      for (int32_t id = threadIdx.x; id < size_; id += kThreads) take(DistanceOf(id), id);
    }
  }

  __device__ uint64_t SumOfUnits() {
    Totals mine = {0, 0};
    ForEach(listed_, [&](uint32_t at, int32_t id) {
      if (kept_.Holds(at, id)) mine.units += Units(at);
    });
    return BlockTotals(mine, shared_).units;
  }

  // The shortest prefix of what is kept whose units, or number, reach `target`; all of it if none does. Uses the list
  // for its own ends if nothing is listed.
  template <bool kUnits>
  __device__ Prefix Shortest(uint64_t target) {
    uint32_t found = 0;
    uint64_t below = 0;  // units or number of candidates nearer than `found`
    bool listed = listed_;
    for (int bit = 30; bit >= 0; --bit) {
      Totals mine = {0, 0};
      ForEach(listed, [&](uint32_t at, int32_t id) {
        // At every bit above the same as `found`, which is 0 at this one and after.
        if (at >> bit != found >> bit || !kept_.Holds(at, id)) return;
        ++mine.count;
        if (kUnits) mine.units += Units(at);
      });
      const Totals all = BlockTotals(mine, shared_);
      const uint64_t reached = below + (kUnits ? all.units : all.count);
      if (reached < target) {
        below = reached;
        found |= uint32_t{1} << bit;
      } else if (!listed && all.count <= kListed) {
        List([&](uint32_t at, int32_t id) { return at >> bit == found >> bit && kept_.Holds(at, id); });
        listed = true;
      }
    }
    const int32_t last = LastId(found, Needed<kUnits>(target - below, found), listed);
    // Never more than what was kept before.
    if (found > kept_.distance) return kept_;
    return {found, found == kept_.distance ? min(last, kept_.id) : last};
  }

  // How many candidates at `distance` it takes.
  template <bool kUnits>
  __device__ static uint64_t Needed(uint64_t target, uint32_t distance) {
    const uint64_t unit = kUnits ? Units(distance) : 1;
    return unit == 0 ? 1 : (target + unit - 1) / unit;
  }

  // Lists the candidates that `holds` holds, at most kListed.
  template <typename Holds>
  __device__ void List(const Holds& holds) {
    __syncthreads();  // the list before is used up
    if (threadIdx.x == 0) shared_.num_listed = 0;
    __syncthreads();  // the list is empty
    ForEach(false, [&](uint32_t at, int32_t id) {
      if (!holds(at, id)) return;
      shared_.list[atomicAdd(&shared_.num_listed, 1)] = make_uint2(at, static_cast<uint32_t>(id));
    });
    __syncthreads();  // the list is there
  }

  // The id of candidate number `needed` (from 1), in the order of ids, at one distance.
  __device__ int32_t LastId(uint32_t distance, uint64_t needed, bool listed) {
    const auto count = [&](int bit, int32_t found) {  // without a bit: all
      Totals mine = {0, 0};
      ForEach(listed, [&](uint32_t at, int32_t id) {
        if (at == distance && kept_.Holds(at, id) && (bit < 0 || id >> bit == found >> bit)) ++mine.count;
      });
      return BlockTotals(mine, shared_).count;
    };
    if (count(-1, 0) <= needed) return INT_MAX;
    int32_t found = 0;
    uint64_t below = 0;
    for (int bit = 31 - __clz(size_); bit >= 0; --bit) {
      const uint64_t reached = below + count(bit, found);
      if (reached >= needed) continue;
      below = reached;
      found |= 1 << bit;
    }
    return found;
  }

  // The largest score of all threads, the lowest id among equals. In thread 0.
  __device__ int32_t Winning(Winner mine) {
    const auto take = [&](double score, int32_t id) {
      if (score > mine.score || (score == mine.score && id < mine.id)) mine = {score, id};
    };
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      const double score = __shfl_xor_sync(kAll, mine.score, step);
      const int32_t id = __shfl_xor_sync(kAll, mine.id, step);
      take(score, id);
    }
    if (threadIdx.x % 32 == 0) shared_.scores[threadIdx.x / 32] = mine.score, shared_.ids[threadIdx.x / 32] = mine.id;
    __syncthreads();  // warps' winners are there
    if (threadIdx.x == 0) {
      for (int warp = 1; warp < kWarps; ++warp) take(shared_.scores[warp], shared_.ids[warp]);
    }
    return mine.id;
  }

  const float* const logits_;
  const int32_t size_;
  const CudaChoice& choice_;
  ChoiceShared& shared_;
  uint32_t* const distances_;  // [vocab] in shared memory, or null where they do not fit
  float largest_ = 0;
  Prefix kept_;
  bool listed_ = false;  // the list holds all that is kept
};

// Grid (choice).
__global__ void __launch_bounds__(kThreads) ChooseTokens(CudaChoiceArgs args, bool holds_distances) {
  __shared__ ChoiceShared shared;
  extern __shared__ uint32_t distances[];
  const CudaChoice choice = args.choices[blockIdx.x];
  Choosing choosing(args, choice, shared, holds_distances ? distances : nullptr);
  choosing.FindBest();
  int32_t token = shared.best;
  if (token >= 0 && choice.temperature > 0) {
    const bool filtered = choice.top_k > 0 || choice.top_p < 1.0 || choice.min_p > 0.0;
    if (filtered) choosing.Filter();
    token = choosing.Draw(filtered);
  }
  if (threadIdx.x != 0) return;
  args.tokens[blockIdx.x] = token;
  if (args.host_tokens != nullptr) args.host_tokens[blockIdx.x] = token;
}

}  // namespace

absl::Status CudaChooseTokens(const CudaChoiceArgs& args, int max_shared_bytes, cudaStream_t stream) {
  if (args.num_choices == 0) return absl::OkStatus();
  const int64_t wanted = args.vocab * static_cast<int64_t>(sizeof(uint32_t));
  const bool fits = wanted + static_cast<int64_t>(sizeof(ChoiceShared)) + 1024 <= max_shared_bytes;
  const int bytes = fits ? static_cast<int>(wanted) : 0;
  if (bytes > 0) {
    const absl::Status status =
        CudaStatus(cudaFuncSetAttribute(ChooseTokens, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                   "cudaFuncSetAttribute(ChooseTokens)");
    if (!status.ok()) return status;
  }
  ChooseTokens<<<static_cast<unsigned>(args.num_choices), kThreads, bytes, stream>>>(args, fits);
  return LaunchStatus("ChooseTokens");
}

}  // namespace statehouse::kernels
