#include "server/commands/bench_sequences.h"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>

#include "absl/strings/str_format.h"

namespace statehouse {
namespace {

using SteadyClock = std::chrono::steady_clock;

double SecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

}  // namespace

BenchSequences::BenchSequences(Model* model, int64_t step_tokens)
    : model_(model), step_tokens_(step_tokens), slot_floats_(model->slot_floats()) {}

absl::Status BenchSequences::Allocate(int64_t max_batch) {
  constexpr int64_t kAlignment = 128;
  const int64_t bytes = slot_floats_ * static_cast<int64_t>(sizeof(float));
  auto slots = model_->AllocateSlots((bytes + kAlignment - 1) / kAlignment * kAlignment, max_batch + 1);
  if (!slots.ok()) {
    return absl::Status(slots.status().code(),
                        absl::StrFormat("no room for the states of %d sequences: %s; choose a smaller --batch",
                                        max_batch, std::string(slots.status().message())));
  }
  slots_ = *std::move(slots);
  tokens_.resize(std::max(step_tokens_, max_batch));
  logits_.resize(max_batch * model_->config().vocab_size);
  model_->RegisterLogits(logits_);
  return model_->Reserve(std::max(step_tokens_, max_batch), max_batch);
}

// Any text would do: what a step costs does not depend on it. This one visits the whole vocabulary.
int32_t BenchSequences::TokenAt(int64_t position) const {
  const uint64_t mixed = static_cast<uint64_t>(position) * 0x9E3779B97F4A7C15u;
  return static_cast<int32_t>((mixed >> 33) % static_cast<uint64_t>(model_->config().vocab_size));
}

int64_t BenchSequences::RowsOfNextStep(int64_t position, int64_t target) const {
  const kernels::RetentionLayout& layout = model_->retention();
  int64_t rows = std::min(step_tokens_, target - position);
  if (layout.has_state() && position < layout.shape().switch_over)
    rows = std::min(rows, layout.shape().switch_over - position);
  return rows;
}

void BenchSequences::SwitchOverIfDue(float* memory, int64_t position) {
  const kernels::RetentionLayout& layout = model_->retention();
  if (!layout.has_switch_over() || position != layout.shape().switch_over) return;
  for (int64_t unit = 0; unit < model_->num_switch_units(); ++unit) model_->SwitchOver(memory, unit);
}

absl::Status BenchSequences::Grow(float* memory, int64_t* position, int64_t rows) {
  SwitchOverIfDue(memory, *position);
  for (int64_t i = 0; i < rows; ++i) tokens_[i] = TokenAt(*position + i);
  const StepSequence sequence = {
      .memory = memory, .position = *position, .first_row = 0, .num_rows = static_cast<int32_t>(rows)};
  const auto last_row = static_cast<int32_t>(rows - 1);
  absl::Status status = model_->Forward({.tokens = {tokens_.data(), static_cast<size_t>(rows)},
                                         .sequences = {&sequence, 1},
                                         .logit_rows = {&last_row, 1}},
                                        {logits_.data(), static_cast<size_t>(model_->config().vocab_size)});
  *position += rows;
  return status;
}

absl::Status BenchSequences::PrefillTo(int64_t position, const std::function<void(int64_t)>& on_progress,
                                       std::vector<PrefillStep>* steps) {
  while (position_ < position) {
    PrefillStep step = {.position = position_, .rows = RowsOfNextStep(position_, position)};
    const SteadyClock::time_point start = SteadyClock::now();
    if (absl::Status status = Grow(Slot(0), &position_, step.rows); !status.ok()) return status;
    step.seconds = SecondsSince(start);
    steps->push_back(step);
    if (on_progress) on_progress(position_);
  }
  return absl::OkStatus();
}

absl::Status BenchSequences::Decode(int64_t batch, int64_t min_runs, double max_seconds,
                                    const std::function<void()>& between, std::vector<double>* seconds) {
  constexpr int64_t kWarmUps = 2;
  std::vector<StepSequence> sequences(batch);
  std::vector<int32_t> logit_rows(batch);
  for (int64_t i = 0; i < batch; ++i) {
    slots_->Copy(Slot(0), Slot(1 + i), slot_floats_);
    sequences[i] = {.memory = Slot(1 + i), .position = position_, .first_row = static_cast<int32_t>(i), .num_rows = 1};
    logit_rows[i] = static_cast<int32_t>(i);
  }
  const int64_t most_runs = std::max(min_runs, model_->retention().shape().chunk);
  const SteadyClock::time_point begin = SteadyClock::now();
  for (int64_t run = -kWarmUps; run < most_runs; ++run) {
    if (run >= min_runs && SecondsSince(begin) > max_seconds) break;
    const int64_t position = sequences[0].position;
    for (StepSequence& sequence : sequences) SwitchOverIfDue(sequence.memory, position);
    for (int64_t i = 0; i < batch; ++i) tokens_[i] = TokenAt(position + i);
    const SteadyClock::time_point start = SteadyClock::now();
    absl::Status status = model_->Forward(
        {.tokens = {tokens_.data(), static_cast<size_t>(batch)}, .sequences = sequences, .logit_rows = logit_rows},
        logits_);
    if (!status.ok()) return status;
    if (run >= 0) {
      seconds->push_back(SecondsSince(start));
      if (between) between();
    }
    for (StepSequence& sequence : sequences) ++sequence.position;
  }
  return absl::OkStatus();
}

absl::Status BenchSequences::CheckResult() {
  constexpr std::array<int64_t, 5> kPieces = {1, 7, 64, 3, 100};
  const auto vocab_size = static_cast<size_t>(model_->config().vocab_size);
  const kernels::RetentionShape& shape = model_->retention().shape();
  int64_t length = shape.chunk * 3 + 5;
  if (!model_->retention().has_state()) length = std::min(length, shape.max_tail_tokens);
  std::vector<float> expected;
  for (const bool whole : {true, false}) {
    slots_->Zero(Slot(0), slot_floats_);
    int64_t position = 0;
    for (size_t piece = 0; position < length; ++piece) {
      const int64_t rows = RowsOfNextStep(position, length);
      absl::Status status = Grow(Slot(0), &position, whole ? rows : std::min(rows, kPieces[piece % kPieces.size()]));
      if (!status.ok()) return status;
    }
    if (whole) expected.assign(logits_.begin(), logits_.begin() + vocab_size);
  }
  slots_->Zero(Slot(0), slot_floats_);
  // A fast mode chooses its order of summation by shape.
  if (model_->arithmetic().ends_with("-fast")) return CheckNear(expected);
  for (size_t token = 0; token < vocab_size; ++token) {
    if (!std::isfinite(logits_[token]) ||
        std::bit_cast<uint32_t>(logits_[token]) != std::bit_cast<uint32_t>(expected[token])) {
      return absl::InternalError(
          absl::StrFormat("the model is wrong: the logit of token %d is %.9g in one piece and %.9g in odd pieces",
                          token, expected[token], logits_[token]));
    }
  }
  return absl::OkStatus();
}

absl::Status BenchSequences::CheckNear(const std::vector<float>& expected) const {
  constexpr double kTolerance = 3e-2;
  double difference = 0, reference = 0;
  for (size_t token = 0; token < expected.size(); ++token) {
    const double off = static_cast<double>(logits_[token]) - static_cast<double>(expected[token]);
    difference += off * off;
    reference += static_cast<double>(expected[token]) * static_cast<double>(expected[token]);
  }
  const double error = std::sqrt(difference / reference);
  if (error <= kTolerance) return absl::OkStatus();
  return absl::InternalError(absl::StrFormat(
      "the model is wrong: logits in one piece and in odd pieces differ by %.3g of their norm; at most %.3g is allowed",
      error, kTolerance));
}

}  // namespace statehouse
