// A backend for turns of sessions that carries on by itself when the server is lost in mid-answer: it asks again with
// the same idempotency key, from the position that has arrived, until a server answers. Requests without a session pass
// through. Thread-safety: as GenerateBackend's.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>

#include "clients/cli/generate_backend.h"

namespace statehouse::cli {

class ResumingBackend : public GenerateBackend {
 public:
  struct Options {
    std::chrono::milliseconds first_pause{200};        // doubles with each attempt that brings nothing, up to 1 s
    std::chrono::seconds patience{60};                 // without an event for so long, the last error is the result
    bool waits_for_first = true;                       // also where none has answered yet
    std::function<void(const absl::Status&)> on_loss;  // told of each loss, before it asks again
  };

  // `inner` must outlive this object.
  ResumingBackend(GenerateBackend* inner, Options options);

  // Fills in an idempotency key if the request has none. The events are those of one undisturbed call: one Started, no
  // token twice. ABORTED: the answer was cut off for good while no server could be reached, and the session keeps what
  // was delivered before.
  absl::Status Generate(const v1::GenerateRequest& request, const OnEvent& on_event) override;
  std::optional<v1::SessionOutcome> FailedOutcome() const override { return inner_->FailedOutcome(); }
  void Cancel() override;
  void ForgetCancel() override;

 private:
  // False if cancelled meanwhile.
  bool Pause(std::chrono::milliseconds duration);

  GenerateBackend* const inner_;
  const Options options_;
  std::mutex mu_;
  std::condition_variable woken_;
  bool cancelled_ = false;  // guarded by mu_
};

}  // namespace statehouse::cli
