#include "engine/engine.h"

#include <atomic>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/admission.h"
#include "engine/core.h"
#include "engine/errors.h"
#include "engine/roster.h"
#include "engine/waker.h"
#include "kernels/parallel/thread_name.h"

namespace statehouse {
namespace {

// With a clock that is not real time, a sleeping engine looks at it this often.
constexpr absl::Duration kForeignClockPoll = absl::Milliseconds(1);

uint64_t DrawSeed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

class EngineImpl final : public Engine {
 public:
  EngineImpl(Model* model, const Vocabulary* vocabulary, const EngineOptions& options)
      : model_(model),
        vocabulary_(vocabulary),
        options_(options),
        waker_(std::make_shared<Waker>()),
        roster_({options.max_num_queued_reqs, options.max_num_queued_tokens, options.max_requests_per_principal,
                 options.max_num_seqs},
                &stats_) {}
  ~EngineImpl() override;

  absl::Status MakeCore() {
    absl::StatusOr<std::unique_ptr<Core>> core =
        Core::Create({model_, vocabulary_, options_.clock, &roster_, waker_.get(), &stats_}, options_);
    if (core.ok()) core_ = std::move(*core);
    return core.status();
  }

  void Start() override;
  bool RunStep() override { return core_->Step(); }
  absl::StatusOr<std::shared_ptr<EventStream>> Submit(std::unique_ptr<Request> request) override;
  bool Cancel(std::string_view request_id, std::string_view principal) override {
    return roster_.Cancel(request_id, principal);
  }
  void StopAdmission() override { roster_.StopAdmission(); }
  bool WaitIdle(absl::Time until) override { return roster_.WaitIdle(until); }
  void CancelAll() override { roster_.CancelAll(); }
  EngineStatus GetStatus() const override;
  const EngineStats& stats() const override { return stats_; }
  const EngineOptions& options() const override { return options_; }

 private:
  void Loop();
  // Snapshots come from, and drafts are for, slots of this model.
  absl::Status CheckShapes(const Request& request) const;

  Model* const model_;
  const Vocabulary* const vocabulary_;
  const EngineOptions options_;
  const std::shared_ptr<Waker> waker_;
  EngineStats stats_;
  Roster roster_;
  std::unique_ptr<Core> core_;
  std::atomic<uint64_t> next_id_{1};
  std::atomic<bool> stop_{false};
  std::thread engine_thread_;
  std::thread reaper_thread_;  // frees finished requests, so that the engine thread does not
};

EngineImpl::~EngineImpl() {
  roster_.StopAdmission();
  stop_.store(true, std::memory_order_release);
  waker_->Wake();
  if (engine_thread_.joinable()) engine_thread_.join();
  if (core_ != nullptr) core_->EndAll(Ending::Why::kShutDown);
  roster_.StopReaping();
  if (reaper_thread_.joinable()) reaper_thread_.join();
}

void EngineImpl::Start() {
  engine_thread_ = std::thread([this] { Loop(); });
  reaper_thread_ = std::thread([this] {
    kernels::NameThisThread("reaper");
    while (roster_.WaitToReap()) roster_.Reap();
  });
}

void EngineImpl::Loop() {
  kernels::NameThisThread("engine");
  const bool real_time = options_.clock == Clock::Real();
  while (!stop_.load(std::memory_order_acquire)) {
    if (core_->Step()) continue;
    const absl::Duration until_next = core_->NextEvent() - options_.clock->Now();
    waker_->Wait(real_time ? until_next : std::min(until_next, kForeignClockPoll));
  }
}

absl::StatusOr<std::shared_ptr<EventStream>> EngineImpl::Submit(std::unique_ptr<Request> request) {
  const int64_t vocab_size = model_->config().vocab_size;
  if (absl::Status status = ValidateRequest(*request, vocab_size); !status.ok()) return status;
  if (absl::Status status = CheckLimits(*request, options_, model_->retention()); !status.ok()) return status;
  if (absl::Status status = CheckMinTokens(*request, model_->config().eos_ids, vocab_size); !status.ok()) return status;
  if (vocabulary_ == nullptr && !request->stop.stop.empty()) {
    return InvalidField("stop.strings", absl::StrCat(request->stop.stop.size(), " strings"),
                        "none: the model was loaded without a tokenizer; use stop.token_ids");
  }
  if (absl::Status status = CheckShapes(*request); !status.ok()) return status;
  if (request->id.empty()) request->id = absl::StrCat("request-", next_id_.fetch_add(1, std::memory_order_relaxed));

  Generation::Settings settings;
  settings.vocab_size = vocab_size;
  settings.eos_ids = model_->config().eos_ids;
  settings.vocabulary = vocabulary_;
  settings.event_capacity = options_.event_capacity;
  settings.max_tokens = ResolveMaxTokens(*request, options_, model_->retention());
  settings.seed = request->sampling.seed.has_value() ? *request->sampling.seed : DrawSeed();
  settings.submitted = options_.clock->Now();
  settings.waker = waker_;
  auto generation = std::make_unique<Generation>(std::move(request), settings);
  std::shared_ptr<EventStream> stream = generation->stream;
  if (!reaper_thread_.joinable()) roster_.Reap();  // driven by RunStep(): here is the place that may free
  if (absl::Status status = roster_.Add(std::move(generation)); !status.ok()) return status;
  waker_->Wake();
  return stream;
}

absl::Status EngineImpl::CheckShapes(const Request& request) const {
  const SlotShape shape{model_->retention(), model_->config().num_layers};
  if (request.from != nullptr && !request.from->shape().SameAs(shape)) {
    return InvalidField("from", "a snapshot of another model's shape", "one of the loaded model");
  }
  for (const SnapshotOrder& order : request.snapshots) {
    if (!order.into->shape().SameAs(shape)) {
      return InvalidField("snapshots", "a draft of another model's shape", "one of the loaded model");
    }
  }
  return absl::OkStatus();
}

EngineStatus EngineImpl::GetStatus() const {
  const Roster::Totals totals = roster_.totals();
  const Core::SlotCounts slots = core_->slot_counts();
  EngineStatus status;
  status.slots_total = options_.max_num_seqs;
  status.slots_used = slots.used;
  status.slots_zeroing = slots.zeroing;
  status.requests_running = totals.running_requests;
  status.requests_queued = totals.queued_requests;
  status.tokens_queued = totals.queued_tokens;
  status.slot_bytes = core_->slot_bytes();
  status.state_bytes = options_.state_memory_bytes;
  status.weight_bytes = model_->weight_bytes();
  status.workspace_bytes = core_->workspace_bytes();
  status.accepting = totals.accepting;
  status.healthy = totals.healthy;
  return status;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(Model* model, const Vocabulary* vocabulary,
                                                       const EngineOptions& options) {
  const SlotShape shape{model->retention(), model->config().num_layers};
  absl::StatusOr<EngineOptions> sized = SizeForDevice(*model, options, shape.bytes());
  if (!sized.ok()) return sized.status();
  absl::StatusOr<EngineOptions> resolved = ResolveOptions(*sized, shape.bytes());
  if (!resolved.ok()) return resolved.status();
  auto engine = std::make_unique<EngineImpl>(model, vocabulary, *resolved);
  if (absl::Status status = engine->MakeCore(); !status.ok()) return status;
  return engine;
}

}  // namespace statehouse
