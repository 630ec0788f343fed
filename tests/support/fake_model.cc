#include "tests/support/fake_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace statehouse::testing {
namespace {

// The start of each region. Small integers, so that floats hold them exactly.
struct Header {
  float position;
  float most;  // the largest position so far: rows that were taken back leave what they wrote
  float switched;
  float hash[4];  // 16 bits each
};
constexpr int64_t kHeaderFloats = sizeof(Header) / sizeof(float);
constexpr float kFiller = 7.0f;  // the rest of the used part

Header* HeaderOf(float* region) { return reinterpret_cast<Header*>(region); }

uint64_t Mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdULL;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ULL;
  return x ^ (x >> 33);
}

void StoreHash(uint64_t hash, float* to) {
  for (int part = 0; part < 4; ++part) to[part] = static_cast<float>((hash >> (16 * part)) & 0xffff);
}
uint64_t LoadHash(const float* from) {
  uint64_t hash = 0;
  for (int part = 0; part < 4; ++part) hash |= static_cast<uint64_t>(from[part]) << (16 * part);
  return hash;
}

uint64_t AddToken(uint64_t hash, int32_t token) { return Mix(hash * 31 + static_cast<uint64_t>(token) + 1); }

kernels::RetentionLayout MakeLayout(const FakeModelOptions& options) {
  kernels::RetentionShape shape;
  shape.heads_q = options.heads_kv;
  shape.heads_kv = options.heads_kv;
  shape.head_dim = 8;
  shape.chunk = options.chunk;
  shape.switch_over = options.switch_over;
  shape.max_tail_tokens = options.max_tail_tokens;
  return kernels::RetentionLayout::Make(shape).value();
}

// Host memory whose reads can be made to fail.
class FakeSlotMemory final : public SlotMemory {
 public:
  FakeSlotMemory(std::unique_ptr<SlotMemory> host, const bool* fail_reads)
      : host_(std::move(host)), fail_reads_(*fail_reads) {}
  float* slot(int64_t idx) override { return host_->slot(idx); }
  void Zero(float* to, int64_t floats) override { host_->Zero(to, floats); }
  void Copy(const float* from, float* to, int64_t floats) override { host_->Copy(from, to, floats); }
  void Write(const float* host, float* to, int64_t floats) override { host_->Write(host, to, floats); }
  void Read(const float* from, float* host, int64_t floats) override {
    if (fail_reads_) {
      status_ = absl::InternalError("a copy out of a slot failed");
    } else {
      host_->Read(from, host, floats);
    }
  }
  absl::Status status() const override { return status_; }

 private:
  const std::unique_ptr<SlotMemory> host_;
  const bool& fail_reads_;
  absl::Status status_;
};

}  // namespace

FakeModel::FakeModel(const FakeModelOptions& options) : options_(options), layout_(MakeLayout(options)) {
  config_.hidden_size = 8;
  config_.num_layers = options.num_layers;
  config_.vocab_size = options.vocab_size;
  config_.heads_q = options.heads_kv;
  config_.heads_kv = options.heads_kv;
  config_.head_dim = 8;
  config_.chunk = options.chunk;
  config_.eos_ids = options.eos_ids;
  history_ = std::max(2 * options.chunk, layout_.has_state() ? layout_.shape().switch_over : options.max_tail_tokens);
}

float* FakeModel::HashAt(float* region, int64_t position) const {
  return region + kHeaderFloats + 4 * (position % history_);
}

bool FakeModel::IsTakenBack(int64_t from, int64_t to) const {
  if (!options_.may_be_taken_back || to >= from) return false;
  const int64_t switch_over = layout_.shape().switch_over;
  if (!layout_.has_state() || from < switch_over) return to >= 1;
  return to >= std::max((from - 1) / options_.chunk * options_.chunk, switch_over);
}

absl::Status FakeModel::Reserve(int64_t max_rows, int64_t max_logit_rows) {
  max_rows_ = max_rows;
  max_logit_rows_ = max_logit_rows;
  row_hashes_.resize(max_rows);
  return absl::OkStatus();
}

absl::Status FakeModel::Forward(const StepBatch& batch, std::span<float> logits) {
  const int64_t num_rows = static_cast<int64_t>(batch.tokens.size());
  const int64_t num_logit_rows = static_cast<int64_t>(batch.logit_rows.size());
  num_steps_.fetch_add(1);
  num_rows_.fetch_add(num_rows);
  if (on_forward) on_forward(batch);
  if (num_rows > max_rows_ || num_logit_rows > max_logit_rows_) Violation("a step larger than reserved");
  if (static_cast<int64_t>(logits.size()) != num_logit_rows * config_.vocab_size) Violation("logits of another size");
  int64_t next_row = 0;
  for (const StepSequence& sequence : batch.sequences) {
    if (sequence.num_rows < 1 || sequence.first_row != next_row) Violation("rows are not contiguous");
    next_row = sequence.first_row + sequence.num_rows;
    for (const StepSequence& other : batch.sequences) {
      if (&other != &sequence && other.memory == sequence.memory) Violation("a slot twice in one step");
    }
  }
  if (next_row != num_rows) Violation("rows that belong to no sequence");
  // Fails with half of the work done, as a device would.
  if (num_steps() == fail_at_.load()) return absl::InternalError("injected fault");
  for (const StepSequence& sequence : batch.sequences) RunRows(batch, sequence);
  for (int64_t idx = 0; idx < num_logit_rows; ++idx) {
    const int32_t row = batch.logit_rows[idx];
    if (row < 0 || row >= num_rows || (idx > 0 && row <= batch.logit_rows[idx - 1]))
      Violation("logit rows out of order");
    FillLogits(row_hashes_[row], logits.subspan(idx * config_.vocab_size, config_.vocab_size));
  }
  return absl::OkStatus();
}

void FakeModel::RunRows(const StepBatch& batch, const StepSequence& sequence) {
  const int64_t switch_over = layout_.shape().switch_over;
  const int64_t end = sequence.position + sequence.num_rows;
  uint64_t hash = 0;
  CheckMemory(sequence, &hash);
  if (!layout_.has_state() && end > layout_.shape().max_tail_tokens) Violation("more rows than the tail holds");
  if (layout_.has_state() && sequence.position < switch_over && end > switch_over) {
    Violation("rows reach across the switch-over");
  }
  for (int32_t row = 0; row < sequence.num_rows; ++row) {
    const int32_t token = batch.tokens[sequence.first_row + row];
    if (token < 0 || token >= config_.vocab_size) Violation("a token out of the vocabulary");
    hash = AddToken(hash, token);
    row_hashes_[sequence.first_row + row] = hash;
    for (int64_t idx = 0; idx < num_regions(); ++idx) {
      StoreHash(hash, HashAt(sequence.memory + idx * layout_.head_floats(), sequence.position + row + 1));
    }
  }
  WriteMemory(sequence.memory, end, hash);
}

void FakeModel::CheckMemory(const StepSequence& sequence, uint64_t* hash) {
  const bool needs_switch =
      layout_.has_state() && layout_.shape().switch_over > 0 && sequence.position >= layout_.shape().switch_over;
  const int64_t used = sequence.position == 0 ? 0 : layout_.UsedHeadFloats(sequence.position);
  for (int64_t idx = 0; idx < num_regions(); ++idx) {
    float* const region = sequence.memory + idx * layout_.head_floats();
    const Header& header = *HeaderOf(region);
    float* const end = region + layout_.head_floats();
    const int64_t most = sequence.position == 0 ? 0 : std::max(used, layout_.UsedHeadFloats(std::llround(header.most)));
    // At the switch-over itself the state form counts as used before anything has been written there.
    const bool is_exact = sequence.position != layout_.shape().switch_over;
    if (is_exact && std::any_of(region + most, end, [](float x) { return x != 0; })) {
      Violation(sequence.position == 0 ? "a slot that is not zero at position 0" : "writing beyond the used part");
    }
    if (sequence.position == 0) continue;
    if (header.position != static_cast<float>(sequence.position) &&
        !IsTakenBack(std::llround(header.position), sequence.position)) {
      Violation("positions do not continue");
    }
    if (needs_switch != (header.switched != 0)) Violation("a switch-over that is missing or too early");
    if (!std::equal(std::begin(header.hash), std::end(header.hash), HeaderOf(sequence.memory)->hash)) {
      Violation("regions of different sequences in one slot");
    }
    const bool at_switch = header.position == static_cast<float>(layout_.shape().switch_over) ||
                           sequence.position == layout_.shape().switch_over;
    const int64_t hashes_end = kHeaderFloats + 4 * history_;
    const int64_t filled = at_switch ? hashes_end : std::max(used, hashes_end);
    if (std::any_of(region + hashes_end, region + filled, [](float x) { return x != kFiller; })) {
      Violation("a part of the slot is missing");
    }
  }
  if (sequence.position > 0) *hash = LoadHash(HashAt(sequence.memory, sequence.position));
}

void FakeModel::WriteMemory(float* memory, int64_t position, uint64_t hash) {
  for (int64_t idx = 0; idx < num_regions(); ++idx) {
    float* const region = memory + idx * layout_.head_floats();
    Header* const header = HeaderOf(region);
    header->position = static_cast<float>(position);
    header->most = std::max(header->most, header->position);
    StoreHash(hash, header->hash);
    const int64_t used = layout_.UsedHeadFloats(position);
    const int64_t hashes_end = kHeaderFloats + 4 * history_;
    if (used > hashes_end) std::fill(region + hashes_end, region + used, kFiller);
  }
}

void FakeModel::SwitchOver(float* memory, int64_t unit) {
  num_switch_units_.fetch_add(1);
  if (unit < 0 || unit >= num_switch_units()) return Violation("a switch-over unit that does not exist");
  Header* const header = HeaderOf(memory + unit * layout_.head_floats());
  if (header->position != static_cast<float>(layout_.shape().switch_over))
    Violation("a switch-over at another position");
  if (header->switched != 0) Violation("a switch-over unit that ran twice");
  header->switched = 1;
}

void FakeModel::FillLogits(uint64_t hash, std::span<float> logits) const {
  for (size_t id = 0; id < logits.size(); ++id) {
    const uint64_t bits = Mix(hash ^ (0x9e3779b97f4a7c15ULL * (id + 1)));
    logits[id] = options_.spread * (static_cast<float>(bits >> 40) * 0x1p-23f - 1.0f);
  }
}

std::vector<float> FakeModel::LogitsAfter(std::span<const int32_t> tokens) const {
  uint64_t hash = 0;
  for (const int32_t token : tokens) hash = AddToken(hash, token);
  std::vector<float> logits(config_.vocab_size);
  FillLogits(hash, logits);
  return logits;
}

void FakeModel::Violation(const char* what) {
  std::lock_guard<std::mutex> lock(mu_);
  if (violation_.empty()) violation_ = what;
}

std::string FakeModel::violation() const {
  std::lock_guard<std::mutex> lock(mu_);
  return violation_;
}

absl::StatusOr<std::unique_ptr<SlotMemory>> FakeModel::AllocateSlots(int64_t slot_bytes, int64_t num_slots) {
  auto host = AllocateHostSlots(slot_bytes, num_slots);
  if (!host.ok()) return host.status();
  return std::make_unique<FakeSlotMemory>(*std::move(host), &fail_slot_reads_);
}

}  // namespace statehouse::testing
