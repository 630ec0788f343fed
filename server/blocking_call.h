// Streaming calls whose messages a function writes or reads one by one, blocking, on a thread of the transfer queue:
// for the few calls that last and move much. Identity is checked first, a log line and a count come last.
//
// Thread-safety: the function runs on one thread; gRPC's callbacks come from any.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "server/call_environment.h"
#include "server/call_record.h"

namespace statehouse {

// What both directions share. `Reactor` is the gRPC reactor of the call.
template <typename Reactor>
class BlockingCall : public Reactor, public std::enable_shared_from_this<BlockingCall<Reactor>> {
 public:
  // Any thread: the client has gone away, or its deadline has passed.
  bool cancelled() const {
    std::lock_guard<std::mutex> lock(mu_);
    return cancelled_;
  }

 protected:
  BlockingCall(const CallEnvironment* environment, grpc::CallbackServerContext* context, const char* method)
      : record_{environment, method}, context_(context) {}

  // Queues `run`. REQUIRES: a shared_ptr holds this object, which from then on belongs to itself until OnDone().
  void Begin(int64_t bytes, std::function<absl::Status(const CallInfo&)> run) {
    self_ = this->shared_from_this();
    const CallEnvironment& environment = *record_.environment;
    absl::Status status = ReadCallInfo(context_, *environment.auth, &record_.info);
    if (status.ok()) {
      status = environment.transfers->Post(
          bytes,
          [this, self = self_, run = std::move(run)] {
            return cancelled() ? absl::CancelledError("the client went away before the call was answered")
                               : run(record_.info);
          },
          [this, self = self_](const absl::Status& ended) { this->Finish(record_.Conclude(ended)); },
          record_.info.principal);
    }
    if (!status.ok()) this->Finish(record_.Conclude(status));
  }
  // Waits for the operation that `start` begins. False: it failed, or took longer than a stuck write may.
  template <typename Start>
  bool Await(const Start& start) {
    {
      std::lock_guard<std::mutex> lock(mu_);
      pending_ = true;
    }
    start();
    std::unique_lock<std::mutex> lock(mu_);
    const auto ended = [this] { return !pending_; };
    const absl::Time until = absl::Now() + record_.environment->stuck_write_timeout;
    if (!changed_.wait_until(lock, absl::ToChronoTime(until), ended)) {
      cancelled_ = true;
      lock.unlock();
      context_->TryCancel();
      lock.lock();
      changed_.wait(lock, ended);  // cancelled, it ends soon
    }
    return succeeded_;
  }
  void Ended(bool is_ok) {
    {
      std::lock_guard<std::mutex> lock(mu_);
      pending_ = false;
      succeeded_ = is_ok;
    }
    changed_.notify_all();
  }

 private:
  void OnCancel() override {
    std::lock_guard<std::mutex> lock(mu_);
    cancelled_ = true;
  }
  void OnDone() override { const auto last = std::move(self_); }

  CallRecord record_;
  grpc::CallbackServerContext* const context_;  // valid until OnDone()
  std::shared_ptr<BlockingCall> self_;
  mutable std::mutex mu_;
  std::condition_variable changed_;
  bool pending_ = false;  // guarded by mu_, as all below
  bool succeeded_ = false;
  bool cancelled_ = false;
};

// A call that answers with a stream.
template <typename Message>
class WritingCall final : public BlockingCall<grpc::ServerWriteReactor<Message>> {
 public:
  using Run = std::function<absl::Status(const CallInfo&, WritingCall*)>;

  static grpc::ServerWriteReactor<Message>* Start(const CallEnvironment* environment,
                                                  grpc::CallbackServerContext* context, const char* method, Run run) {
    const std::shared_ptr<WritingCall> call(new WritingCall(environment, context, method));
    call->Begin(/*bytes=*/0, [raw = call.get(), run = std::move(run)](const CallInfo& info) { return run(info, raw); });
    return call.get();
  }

  // Blocks until the message is on its way. CANCELLED: nobody reads any more.
  absl::Status Write(const Message& message) {
    if (this->Await([&] { this->StartWrite(&message); })) return absl::OkStatus();
    return absl::CancelledError("the client does not read any more");
  }

 private:
  WritingCall(const CallEnvironment* environment, grpc::CallbackServerContext* context, const char* method)
      : BlockingCall<grpc::ServerWriteReactor<Message>>(environment, context, method) {}
  void OnWriteDone(bool is_ok) override { this->Ended(is_ok); }
};

// A call that takes a stream.
template <typename Message>
class ReadingCall final : public BlockingCall<grpc::ServerReadReactor<Message>> {
 public:
  using Run = std::function<absl::Status(const CallInfo&, ReadingCall*)>;

  static grpc::ServerReadReactor<Message>* Start(const CallEnvironment* environment,
                                                 grpc::CallbackServerContext* context, const char* method, Run run) {
    const std::shared_ptr<ReadingCall> call(new ReadingCall(environment, context, method));
    call->Begin(/*bytes=*/0, [raw = call.get(), run = std::move(run)](const CallInfo& info) { return run(info, raw); });
    return call.get();
  }

  // Blocks until a message has come. False: none comes any more.
  bool Read(Message* message) {
    return this->Await([&] { this->StartRead(message); });
  }

 private:
  ReadingCall(const CallEnvironment* environment, grpc::CallbackServerContext* context, const char* method)
      : BlockingCall<grpc::ServerReadReactor<Message>>(environment, context, method) {}
  void OnReadDone(bool is_ok) override { this->Ended(is_ok); }
};

}  // namespace statehouse
