#include "clients/cli/load_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "clients/cli/inspect.h"
#include "clients/cli/load_floor.h"
#include "clients/cli/wire_backend.h"
#include "clients/flags/numbers.h"
#include "statehouse/v1/admin.grpc.pb.h"

namespace statehouse::cli {
namespace {

using SteadyClock = std::chrono::steady_clock;

// Counts requests under way and wakes who waits for one to end.
class Gate {
 public:
  void Enter(int64_t limit) {
    std::unique_lock lock(mu_);
    changed_.wait(lock, [&] { return limit <= 0 || running_ < limit; });
    ++running_;
  }
  void Leave() {
    std::lock_guard lock(mu_);
    --running_;
    ++done_;
    changed_.notify_all();
  }
  // Waits until `count` have left, calling `on_progress` now and then.
  void WaitFor(int64_t count, const std::function<void(int64_t)>& on_progress) {
    std::unique_lock lock(mu_);
    while (done_ < count) {
      changed_.wait_for(lock, std::chrono::milliseconds(100));
      const int64_t done = done_;
      lock.unlock();
      on_progress(done);
      lock.lock();
    }
  }
  int64_t done() {
    std::lock_guard lock(mu_);
    return done_;
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  int64_t running_ = 0, done_ = 0;
};

// One streamed call, on gRPC's own threads. Deletes itself when it is done; `record` and `gate` must outlive it.
class LoadCall : public grpc::ClientReadReactor<v1::GenerateEvent> {
 public:
  static void Start(const Connection& connection, v1::Generation::Stub& stub, const v1::GenerateRequest& request,
                    SteadyClock::time_point begin, RequestRecord* record, Gate* gate) {
    auto* call = new LoadCall(connection, request, begin, record, gate);
    record->sent = call->Now();
    stub.async()->Generate(&call->context_, &call->request_, call);
    call->StartRead(&call->event_);
    call->StartCall();
  }

 private:
  LoadCall(const Connection& connection, const v1::GenerateRequest& request, SteadyClock::time_point begin,
           RequestRecord* record, Gate* gate)
      : connection_(connection), request_(request), begin_(begin), record_(record), gate_(gate) {
    connection.Prepare(&context_);
  }

  double Now() const { return std::chrono::duration<double>(SteadyClock::now() - begin_).count(); }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (event_.has_delta()) {
      record_->outputs.push_back(Now());
      if (record_->first_text < 0 && !event_.delta().text().empty()) record_->first_text = record_->outputs.back();
    } else if (event_.has_done()) {
      record_->prompt_tokens = event_.done().usage().prompt_tokens();
      record_->output_tokens = event_.done().usage().completion_tokens();
    }
    StartRead(&event_);
  }

  void OnDone(const grpc::Status& status) override {
    record_->ok = status.ok();
    const absl::Status explained = connection_.Explain(status);
    if (!status.ok()) record_->error = std::string(explained.message());
    if (status.ok() && record_->outputs.empty()) record_->error = "the answer held no output";
    Gate* gate = gate_;
    delete this;
    gate->Leave();
  }

  const Connection& connection_;
  const v1::GenerateRequest request_;
  const SteadyClock::time_point begin_;
  RequestRecord* record_;
  Gate* gate_;
  grpc::ClientContext context_;
  v1::GenerateEvent event_;
};

int64_t DrawLength(int64_t length, double range_ratio, std::mt19937_64& random) {
  const auto low = static_cast<int64_t>(static_cast<double>(length) * (1 - range_ratio));
  const auto high = static_cast<int64_t>(static_cast<double>(length) * (1 + range_ratio));
  return std::max<int64_t>(1, low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1)));
}

// Figures without it are as good: no answer ends nothing, but is told.
void AddServer(const Connection& connection, const v1::Model& model, LoadReport* report) {
  v1::GetStatusResponse status;
  const auto stub = v1::Admin::NewStub(connection.channel());
  const absl::Status asked =
      Ask(connection, [&](grpc::ClientContext* context) { return stub->GetStatus(context, {}, &status); });
  if (!asked.ok()) {
    report->server_error = std::string(asked.message());
    return;
  }
  report->server_version = status.build().version();
  report->server_commit = status.build().commit();
  report->server_device = status.build().device();
  report->floors = FloorsOf(model, status.machine(), *report);
}

}  // namespace

absl::Status Validate(const LoadOptions& options) {
  const auto refuse = [](const char* flag, const std::string& value, const char* expected) {
    return absl::InvalidArgumentError(absl::StrFormat("%s: %s is not allowed; expected %s", flag, value, expected));
  };
  if (options.num_prompts < 1) return refuse("--num-prompts", std::to_string(options.num_prompts), "at least 1");
  if (!(options.request_rate >= 0))
    return refuse("--request-rate", absl::StrFormat("%g", options.request_rate),
                  "a rate above 0, or 0 for all at once");
  if (!(options.burstiness > 0))
    return refuse("--burstiness", absl::StrFormat("%g", options.burstiness), "a number above 0");
  if (options.max_concurrency < 0)
    return refuse("--max-concurrency", std::to_string(options.max_concurrency), "at least 1, or 0 for no limit");
  if (options.input_len < 1) return refuse("--input-len", std::to_string(options.input_len), "at least 1");
  if (options.output_len < 1) return refuse("--output-len", std::to_string(options.output_len), "at least 1");
  if (!(options.range_ratio >= 0 && options.range_ratio < 1))
    return refuse("--range-ratio", absl::StrFormat("%g", options.range_ratio), "0 or more and below 1");
  if (options.num_warmups < 0) return refuse("--num-warmups", std::to_string(options.num_warmups), "at least 0");
  return absl::OkStatus();
}

absl::Status ParseGoals(const std::vector<std::string>& texts, Goals* goals) {
  for (const std::string& text : texts) {
    const size_t colon = text.find(':');
    const std::string name = text.substr(0, colon);
    std::optional<double>* goal = name == "ttft"   ? &goals->ttft_ms
                                  : name == "tpot" ? &goals->tpot_ms
                                  : name == "e2el" ? &goals->e2el_ms
                                                   : nullptr;
    const absl::StatusOr<double> value = ParseNumber<double>(
        colon == std::string::npos ? std::string_view() : std::string_view(text).substr(colon + 1), {.least = 0});
    if (goal == nullptr || !value.ok() || *value == 0) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "--goodput: \"%s\" is not allowed; expected ttft:MS, tpot:MS or e2el:MS, such as ttft:200", text));
    }
    *goal = *value;
  }
  return absl::OkStatus();
}

std::vector<v1::GenerateRequest> MakeRequests(const LoadOptions& options, int64_t vocab_size) {
  std::mt19937_64 random(options.random_seed);
  std::vector<v1::GenerateRequest> requests;
  requests.reserve(options.num_prompts);
  for (int64_t i = 0; i < options.num_prompts; ++i) {
    v1::GenerateRequest request = options.request;
    const int64_t input_len = DrawLength(options.input_len, options.range_ratio, random);
    auto* ids = request.mutable_token_ids()->mutable_ids();
    for (int64_t t = 0; t < input_len; ++t)
      ids->Add(static_cast<int32_t>(random() % static_cast<uint64_t>(vocab_size)));
    request.mutable_stop()->set_max_tokens(DrawLength(options.output_len, options.range_ratio, random));
    request.mutable_stop()->set_ignore_eos(true);
    requests.push_back(std::move(request));
  }
  return requests;
}

absl::StatusOr<LoadReport> RunLoad(const Connection& connection, const LoadOptions& options,
                                   const std::function<void(int64_t, int64_t)>& on_progress) {
  if (absl::Status status = Validate(options); !status.ok()) return status;
  if (absl::Status status = CheckText(options.request); !status.ok()) return status;
  absl::StatusOr<v1::Model> model = GetModel(connection, options.request.model());
  if (!model.ok()) return model.status();
  const std::vector<v1::GenerateRequest> requests = MakeRequests(options, model->vocab_size());
  WireBackend warmup(&connection);
  for (int64_t i = 0; i < options.num_warmups; ++i) {
    absl::Status status = warmup.Generate(requests[i % requests.size()], [](const v1::GenerateEvent&) {});
    if (!status.ok()) return status;
  }
  const auto report_progress = [&](int64_t done) {
    if (on_progress) on_progress(done, options.num_prompts);
  };
  std::mt19937_64 random(options.random_seed + 1);
  const bool paced = options.request_rate > 0 && std::isfinite(options.request_rate);
  const double rate = paced ? options.request_rate : 1;
  std::gamma_distribution<double> gap_s(options.burstiness, 1 / (rate * options.burstiness));
  std::vector<RequestRecord> records(requests.size());
  const std::unique_ptr<v1::Generation::Stub> stub = v1::Generation::NewStub(connection.channel());
  Gate gate;
  const SteadyClock::time_point begin = SteadyClock::now();
  SteadyClock::time_point due = begin;
  for (size_t i = 0; i < requests.size(); ++i) {
    while (SteadyClock::now() < due) {
      report_progress(gate.done());
      std::this_thread::sleep_until(std::min(due, SteadyClock::now() + std::chrono::milliseconds(100)));
    }
    gate.Enter(options.max_concurrency);
    LoadCall::Start(connection, *stub, requests[i], begin, &records[i], &gate);
    if (paced) {
      due += std::chrono::duration_cast<SteadyClock::duration>(std::chrono::duration<double>(gap_s(random)));
    }
    report_progress(gate.done());
  }
  gate.WaitFor(static_cast<int64_t>(requests.size()), report_progress);
  LoadReport report = MakeReport(records, options.goals);
  report.model = model->name();
  report.fingerprint = model->fingerprint();
  AddServer(connection, *model, &report);
  if (report.completed == 0) return absl::UnavailableError("no request succeeded: " + report.errors.front());
  return report;
}

}  // namespace statehouse::cli
