// Where a generation runs: a server, or an engine in this process. Both speak the wire's own messages.
#pragma once

#include <functional>
#include <optional>

#include "absl/status/status.h"
#include "statehouse/v1/generation.pb.h"

namespace statehouse::cli {

class GenerateBackend {
 public:
  using OnEvent = std::function<void(const v1::GenerateEvent&)>;

  virtual ~GenerateBackend() = default;
  // Runs one request and hands over its events in order; blocks until it ended. CANCELLED after Cancel().
  virtual absl::Status Generate(const v1::GenerateRequest& request, const OnEvent& on_event) = 0;
  // Where the last Generate(), which failed, left its session, if it was told that.
  virtual std::optional<v1::SessionOutcome> FailedOutcome() const { return std::nullopt; }
  // Ends the running Generate() soon, or the next one as it begins. From any thread.
  virtual void Cancel() = 0;
  // Forgets calls of Cancel() so far: before anything is set up that may cancel the next Generate().
  virtual void ForgetCancel() = 0;
};

}  // namespace statehouse::cli
