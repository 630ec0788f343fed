#include "server/commands/offline.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <condition_variable>
#include <utility>
#include <vector>

#include "server/convert_event.h"
#include "server/convert_request.h"

namespace statehouse {
namespace {

// Lets one thread wait for the engine's events.
class EventSignal : public EventStream::Listener {
 public:
  explicit EventSignal(EventStream* stream) : stream_(*stream) { stream_.SetListener(this); }
  ~EventSignal() override { stream_.SetListener(nullptr); }

  void OnEvents() override {
    std::lock_guard lock(mu_);
    raised_ = true;
    changed_.notify_one();
  }
  // Events that came between two calls are not missed.
  void Wait() {
    std::unique_lock lock(mu_);
    changed_.wait(lock, [this] { return raised_; });
    raised_ = false;
  }

 private:
  EventStream& stream_;
  std::mutex mu_;
  std::condition_variable changed_;
  bool raised_ = true;  // whatever came before this listener did
};

}  // namespace

void AddOfflineFlags(CLI::App& command, OfflineFlags* flags) {
  AddModelFlags(command, &flags->model);
  AddEngineFlags(command, &flags->engine);
  command.get_option("--model")->required(false);
}

absl::StatusOr<std::unique_ptr<OfflineGenerator>> OfflineGenerator::Open(
    const OfflineFlags& flags, const v1::GenerateRequest& request, std::function<void(int64_t, int64_t)> on_progress) {
  if (flags.model.model.empty()) {
    return absl::InvalidArgumentError(
        "--offline runs the engine in this process and needs a checkpoint: add --model DIR");
  }
  absl::StatusOr<CheckpointOptions> checkpoint = ToCheckpointOptions(flags.model, std::move(on_progress));
  if (!checkpoint.ok()) return checkpoint.status();
  HostedModelOptions options;
  options.directory = flags.model.model;
  options.served_name = request.model();
  options.checkpoint = *std::move(checkpoint);
  options.engine = flags.engine;
  options.threads = flags.model.threads;
  if (options.engine.max_num_seqs == 0 && options.engine.state_memory_bytes == 0) {
    constexpr int kMostSlots = 16;  // outputs beyond that run in turns
    options.engine.max_num_seqs = std::clamp(request.n(), 1, kMostSlots);
  }
  absl::StatusOr<std::unique_ptr<HostedModel>> model = HostedModel::Load(options);
  if (!model.ok()) return model.status();
  return std::unique_ptr<OfflineGenerator>(new OfflineGenerator(*std::move(model)));
}

absl::Status OfflineGenerator::Generate(const v1::GenerateRequest& request,
                                        const std::function<void(const v1::GenerateEvent&)>& on_event) {
  absl::StatusOr<std::unique_ptr<Request>> converted = ToRequest(request, model_->served());
  if (!converted.ok()) return converted.status();
  std::vector<int32_t> prompt = (*converted)->prompt;
  absl::StatusOr<std::shared_ptr<EventStream>> stream = model_->engine().Submit(*std::move(converted));
  if (!stream.ok()) return stream.status();
  {
    std::lock_guard lock(mu_);
    running_ = *stream;
    if (cancelled_) running_->Cancel();
  }
  EventConverter converter(request, &model_->served(), *stream, std::move(prompt));
  {
    EventSignal signal(stream->get());
    v1::GenerateEvent event;
    for (EventConverter::Result result = converter.Take(&event);; result = converter.Take(&event)) {
      if (result == EventConverter::Result::kNothing) {
        signal.Wait();
        continue;
      }
      on_event(event);
      if (result == EventConverter::Result::kDone) break;
    }
  }
  std::lock_guard lock(mu_);
  running_ = nullptr;
  return (*stream)->status();
}

void OfflineGenerator::Cancel() {
  std::lock_guard lock(mu_);
  cancelled_ = true;
  if (running_ != nullptr) running_->Cancel();
}

void OfflineGenerator::ForgetCancel() {
  std::lock_guard lock(mu_);
  cancelled_ = false;
}

}  // namespace statehouse
