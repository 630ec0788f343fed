#include "server/commands/bench_sessions.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/engine.h"
#include "engine/state/host_memory.h"
#include "engine/state/snapshot_file.h"
#include "kernels/matmul/matmul.h"
#include "server/commands/bench.h"  // Median, SteadySeconds
#include "server/commands/made_up_snapshot.h"

namespace statehouse {
namespace {

class SessionsBench {
 public:
  SessionsBench(Model* model, uint64_t tokenizer, const SessionsBenchOptions& options, const BenchStores& stores,
                const SessionsBenchObserver& observer)
      : model_(model),
        options_(options),
        stores_(stores),
        observer_(observer),
        fingerprint_(Fingerprint::Of(*model, tokenizer)),
        shape_{model->retention(), model->config().num_layers} {
    std::shared_ptr<PageLocker> locker = model->page_locker();
    if (locker == nullptr) return;
    // What is restored, what is taken, and what is read back meanwhile.
    constexpr int64_t kBlocks = 6;
    memory_ = SnapshotMemory::Make({.block_bytes = shape_.bytes(), .num_blocks = kBlocks}, std::move(locker));
  }

  absl::StatusOr<SessionsBenchReport> Run() {
    auto engine = Engine::Create(model_, nullptr, {.max_num_seqs = 2, .max_num_batched_tokens = options_.step_tokens});
    if (!engine.ok()) return engine.status();
    engine_ = *std::move(engine);
    if (memory_ != nullptr) report_.why_ordinary = std::string(memory_->why_fewer().message());
    report_.device = model_->device_name();
    report_.dtype = kernels::WeightTypeName(model_->weight_type());
    report_.switch_over = model_->retention().has_state() ? model_->retention().shape().switch_over : -1;
    report_.slot_bytes = engine_->GetStatus().slot_bytes;
    for (const int64_t context : options_.contexts) {
      if (absl::Status status = MeasureContext(context); !status.ok()) return status;
    }
    if (options_.requests > 0 && !options_.made_up_states) {
      auto workloads = MeasureWorkloads(model_, options_, observer_);
      if (!workloads.ok()) return workloads.status();
      report_.workloads = *std::move(workloads);
    }
    const EngineStatus status = engine_->GetStatus();
    report_.made_up_states = options_.made_up_states;
    report_.memory = {{"weights", status.weight_bytes},
                      {"slots", status.state_bytes},
                      {"step buffers", status.workspace_bytes},
                      {"one snapshot, last context", head_->bytes()},
                      {"prefix cache, most", options_.cache_states * report_.slot_bytes},
                      {"process, resident", ResidentBytes()}};
    if (memory_ != nullptr) report_.memory.push_back({"page-locked for snapshots", memory_->locked_bytes()});
    return std::move(report_);
  }

 private:
  struct Outcome {
    double first_token = 0;  // seconds
    int64_t cached_tokens = 0;
    std::shared_ptr<const Snapshot> snapshot;  // of the whole prompt, if asked for
  };

  // Of the first `size` tokens, from the beginning or from a snapshot.
  absl::StatusOr<Outcome> Ask(int64_t size, const std::shared_ptr<const Snapshot>& from, bool keep) {
    auto request = std::make_unique<Request>();
    request->prompt.assign(tokens_.begin(), tokens_.begin() + size);
    request->from = from;
    request->sampling.temperature = 0;
    request->stop.max_tokens = 1;
    std::shared_ptr<SnapshotDraft> draft;
    if (keep) {
      auto reserved = SnapshotDraft::Reserve(shape_, model_->config().vocab_size, memory_.get(), size);
      if (!reserved.ok()) return reserved.status();
      draft = *std::move(reserved);
      request->snapshots = {{size, draft}};
    }
    const double start = SteadySeconds();
    auto stream = engine_->Submit(std::move(request));
    if (!stream.ok()) return stream.status();
    Outcome outcome;
    int64_t steps = 0;
    const int64_t first = from == nullptr ? 0 : from->position();
    for (bool done = false; !done; ++steps) {
      engine_->RunStep();
      if (observer_.on_progress && size - first > 4 * options_.step_tokens) {
        observer_.on_progress("prefill", std::min(size - first, steps * options_.step_tokens), size - first);
      }
      for (Event event; (*stream)->TryNext(&event);) {
        if (event.kind == Event::Kind::kToken) outcome.first_token = SteadySeconds() - start;
        done = done || event.kind == Event::Kind::kDone;
      }
    }
    while (engine_->RunStep()) {
    }  // slots are zeroed outside of what is measured
    if (absl::Status status = (*stream)->status(); !status.ok()) return status;
    outcome.cached_tokens = (*stream)->usage().cached_tokens;
    if (draft != nullptr && draft->filled()) {
      outcome.snapshot = draft->Seal({tokens_.begin(), tokens_.begin() + size});
    }
    return outcome;
  }

  absl::Status MeasureContext(int64_t context) {
    if (!options_.made_up_states) return MeasureComputed(context);
    auto made = MadeUpSnapshot(shape_, model_->config().vocab_size, context);
    if (!made.ok()) return made.status();
    head_ = *std::move(made);
    if (observer_.on_progress) observer_.on_progress("moves", 0, 0);
    return MeasureMoves(model_, memory_.get(), *head_, fingerprint_, options_, stores_, &report_.moves);
  }

  absl::Status MeasureComputed(int64_t context) {
    while (static_cast<int64_t>(tokens_.size()) < context) {
      tokens_.push_back(
          static_cast<int32_t>((static_cast<int64_t>(tokens_.size()) * 7919 + 13) % model_->config().vocab_size));
    }
    auto prefilled = Ask(context, head_, /*keep=*/true);
    if (!prefilled.ok()) return prefilled.status();
    if (prefilled->snapshot == nullptr) return absl::InternalError("bench: the engine took no snapshot");
    // From the context before on; that one's time is known.
    FirstTokenFigure figure = {.context = context, .prefill = prefill_seconds_ + prefilled->first_token};
    prefill_seconds_ = figure.prefill;
    head_ = prefilled->snapshot;
    if (observer_.on_progress) observer_.on_progress("moves", 0, 0);
    absl::Status status = MeasureMoves(model_, memory_.get(), *head_, fingerprint_, options_, stores_, &report_.moves);
    if (!status.ok()) return status;
    if (absl::Status status = MeasureFirstTokens(&figure); !status.ok()) return status;
    report_.first_tokens.push_back(figure);
    return absl::OkStatus();
  }

  absl::Status MeasureFirstTokens(FirstTokenFigure* figure) {
    std::vector<double> host, disk;
    const std::string key = BenchKey(figure->context);
    for (int64_t run = 0; run < options_.min_runs; ++run) {
      auto restored = Ask(figure->context, head_, false);
      if (!restored.ok()) return restored.status();
      if (restored->cached_tokens != figure->context) return absl::InternalError("bench: a restore that computed");
      host.push_back(restored->first_token);
      if (stores_.disk == nullptr) continue;
      const double start = SteadySeconds();
      const auto stored = stores_.disk->Open(key);
      if (!stored.ok()) return stored.status();
      auto loaded = ReadSnapshot(**stored, key, fingerprint_, shape_, false, memory_.get());
      if (!loaded.ok()) return loaded.status();
      const double read = SteadySeconds() - start;
      auto answered = Ask(figure->context, loaded->snapshot, false);
      if (!answered.ok()) return answered.status();
      disk.push_back(read + answered->first_token);
    }
    figure->host = Median(std::move(host));
    figure->disk = Median(std::move(disk));
    return absl::OkStatus();
  }

  Model* const model_;
  const SessionsBenchOptions& options_;
  const BenchStores stores_;
  const SessionsBenchObserver& observer_;
  const Fingerprint fingerprint_;
  const SlotShape shape_;
  std::shared_ptr<SnapshotMemory> memory_;  // null: ordinary memory
  std::unique_ptr<Engine> engine_;
  std::vector<int32_t> tokens_;
  std::shared_ptr<const Snapshot> head_;
  double prefill_seconds_ = 0;
  SessionsBenchReport report_;
};

absl::Status CheckNumber(const char* flag, double value, double least, double most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", value, "; it must be in [", least, ", ", most, "]"));
}

}  // namespace

absl::Status Validate(const SessionsBenchOptions& options) {
  constexpr double kMany = 1e9;
  int64_t last = 0;
  if (options.contexts.empty()) return absl::InvalidArgumentError("--context: at least one length is needed");
  for (const int64_t context : options.contexts) {
    if (absl::Status status = CheckNumber("--context", static_cast<double>(context), 1, kMany); !status.ok()) {
      return status;
    }
    if (context <= last) return absl::InvalidArgumentError("--context: lengths must ascend");
    last = context;
  }
  for (const absl::Status& status :
       {CheckNumber("--step-tokens", static_cast<double>(options.step_tokens), 1, 65536),
        CheckNumber("--min-runs", static_cast<double>(options.min_runs), 1, kMany),
        CheckNumber("--max-seconds", options.max_seconds, 0, kMany),
        CheckNumber("--requests", static_cast<double>(options.requests), 0, kMany),
        CheckNumber("--cache-states", static_cast<double>(options.cache_states), 3, 1e6)}) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<SessionsBenchReport> RunSessionsBench(Model* model, uint64_t tokenizer_fingerprint,
                                                     const SessionsBenchOptions& options, const BenchStores& stores,
                                                     const SessionsBenchObserver& observer) {
  return SessionsBench(model, tokenizer_fingerprint, options, stores, observer).Run();
}

}  // namespace statehouse
