#include "server/commands/serve.h"

#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/admission.h"
#include "engine/state/fingerprint.h"
#include "server/commands/command_error.h"
#include "server/commands/load_progress.h"
#include "server/commands/startup_summary.h"
#include "server/hosted_model.h"
#include "server/log.h"
#include "server/server.h"
#include "server/signals.h"

namespace statehouse {
namespace {

bool ColourOn(int fd) {
  const char* no_colour = std::getenv("NO_COLOR");
  return isatty(fd) != 0 && (no_colour == nullptr || *no_colour == '\0');
}

absl::StatusOr<std::unique_ptr<HostedModel>> LoadModelToServe(const ServeOptions& options, Log* log) {
  LoadProgress progress(log);
  HostedModelOptions hosted;
  auto checkpoint =
      ToCheckpointOptions(options.model, [&progress](int64_t done, int64_t all) { progress.Show(done, all); });
  if (!checkpoint.ok()) return checkpoint.status();
  checkpoint->load.on_device = [log](const std::string& why) { log->Info("device", {{"choice", why}}); };
  checkpoint->load.on_warning = [log](const std::string& warning) { log->Warning(warning); };
  hosted.checkpoint = *std::move(checkpoint);
  hosted.directory = options.model.model;
  hosted.served_name = options.served_model_name;
  hosted.engine = options.engine;
  hosted.sessions = options.sessions;
  hosted.sessions->on_upkeep_failure = [log](const std::string& what) {
    log->Warning("sessions: something failed beside turns, and is tried again", {{"what", what}});
  };
  hosted.threads = options.model.threads;
  hosted.enable_prefix_caching = options.enable_prefix_caching;
  hosted.prefix_cache = options.prefix_cache;
  hosted.page_locked_bytes = options.page_locked_bytes;
  hosted.measure_machine = true;
  auto model = HostedModel::Load(hosted);
  progress.Clear();
  if (model.ok()) {
    for (const std::string& warning : (*model)->checkpoint().warnings) log->Warning(warning);
    for (const std::string& warning : (*model)->sessions()->warnings()) log->Warning(warning);
    for (const std::string& warning : (*model)->warnings()) log->Warning(warning);
    if (!(*model)->checkpoint().model->is_batch_invariant()) {
      log->Warning("what sessions and the prefix cache restore goes on, but not provably bit for bit",
                   {{"why", kNotBatchInvariant}});
    }
  }
  return model;
}

// Turns have ended with their requests; what is left is to write and to hand over.
void DrainSessions(HostedSessions* sessions, Log* log) {
  constexpr absl::Duration kDrainTime = absl::Seconds(30);
  const absl::Status status = sessions->store().Drain(absl::Now() + kDrainTime);
  if (!status.ok()) log->Warning("sessions were not all handed over", {{"error", std::string(status.message())}});
}

}  // namespace

int RunServe(const ServeOptions& options) {
  // Before anything listens or loads.
  if (absl::Status status = CheckOptions(options.engine); !status.ok()) return FailCommand(status);
  if (absl::Status status = CheckSessionSettings(options.sessions); !status.ok()) return FailCommand(status);
  if (absl::Status status = ToCheckpointOptions(options.model).status(); !status.ok()) return FailCommand(status);
  const bool json = options.log_format == "json";
  Log log(json ? Log::Format::kJson : Log::Format::kText, stderr, ColourOn(STDERR_FILENO));
  std::unique_ptr<HostedModel> model;  // outlives the server
  std::unique_ptr<Server> server;
  // First of all threads, so that the others inherit the blocked signals. The callback waits for the server to exist.
  std::mutex reload_mu;
  Signals signals([&] {
    std::lock_guard<std::mutex> lock(reload_mu);
    if (server != nullptr) server->Reload();
  });
  signals.ExitOnStop(true);  // while loading there is nothing to finish

  ServerOptions server_options;
  server_options.listen = options.listen;
  server_options.auth_tokens_file = options.auth_tokens_file;
  server_options.metrics_host = options.metrics_host;
  server_options.metrics_port = options.metrics_port;
  server_options.log_prompts = options.log_prompts;
  server_options.slow_reader_timeout = options.engine.slow_reader_timeout;
  server_options.operators = options.operators;
  server_options.on_failed = [&signals] { signals.RequestStop(); };
  auto started = Server::Start(server_options, &log);
  if (!started.ok()) return FailCommand(started.status());
  {
    std::lock_guard<std::mutex> lock(reload_mu);
    server = *std::move(started);
  }
  log.Info("listening; loading the model", {{"address", server->addresses()}, {"model", options.model.model}});

  auto loaded = LoadModelToServe(options, &log);
  if (!loaded.ok()) return FailCommand(loaded.status());
  model = *std::move(loaded);
  signals.ExitOnStop(false);
  server->Serve(&model->served());
  PrintStartupSummary(*model, *server, options, &log);

  const int signal = signals.WaitForStop();
  const bool failed = !model->engine().GetStatus().healthy;
  log.Info("stopping: finishing requests in flight; a second signal ends at once",
           {{"signal", int64_t{signal}}, {"timeout_s", absl::ToDoubleSeconds(options.shutdown_timeout)}});
  const int64_t cancelled = server->Drain(options.shutdown_timeout);
  if (cancelled > 0) log.Warning("requests were cancelled at the end of --shutdown-timeout", {{"requests", cancelled}});
  DrainSessions(model->sessions(), &log);
  log.Info("stopped");
  {
    std::lock_guard<std::mutex> lock(reload_mu);
    server.reset();
  }
  return failed ? 1 : 0;
}

}  // namespace statehouse
