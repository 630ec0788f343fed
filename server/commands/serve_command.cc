// The flags of `statehouse serve`. Each can also be set by its environment variable and in the config file: main adds
// those.
#include <CLI/CLI.hpp>
#include <memory>

#include "clients/flags/choices.h"
#include "clients/flags/number_flags.h"
#include "server/commands/serve.h"
#include "server/commands/session_flags.h"

namespace statehouse {
namespace {

void AddListenFlags(CLI::App& command, ListenOptions* listen) {
  constexpr char kGroup[] = "Address and encryption";
  command.add_option("--host", listen->host, "Address to listen on")
      ->type_name("HOST")
      ->capture_default_str()
      ->group(kGroup);
  AddNumber(command, "--port", &listen->port, "Port; 0: any free one; -1: none, --unix-socket alone",
            {.least = -1, .most = 65535})
      ->group(kGroup);
  command
      .add_option("--unix-socket", listen->unix_socket, "Also listen on this socket file, guarded by its permissions")
      ->type_name("PATH")
      ->group(kGroup);
  command
      .add_flag("--allow-plaintext", listen->allow_plaintext,
                "Serve other machines without TLS, for instance behind a proxy that encrypts")
      ->group(kGroup);
  command.add_option("--tls-cert,--ssl-certfile", listen->tls_cert, "Certificate chain, PEM; turns TLS on")
      ->type_name("FILE")
      ->group(kGroup);
  command.add_option("--tls-key,--ssl-keyfile", listen->tls_key, "The certificate's private key, PEM")
      ->type_name("FILE")
      ->group(kGroup);
  command
      .add_option("--tls-client-ca,--ssl-ca-certs", listen->tls_client_ca,
                  "Mutual TLS: clients must show a certificate of this authority, PEM; its name is then the principal")
      ->type_name("FILE")
      ->group(kGroup);
}

void AddConnectionFlags(CLI::App& command, ListenOptions* listen) {
  constexpr char kGroup[] = "Connections";
  AddBytesFlag(command, "--max-message-bytes", &listen->max_message_bytes, "Largest message in either direction")
      ->group(kGroup);
  AddDurationFlag(command, "--keepalive-time", &listen->keepalive_time, "Ping a quiet connection after this time")
      ->group(kGroup);
  AddDurationFlag(command, "--keepalive-timeout", &listen->keepalive_timeout, "Without an answer to the ping, close it")
      ->group(kGroup);
  AddDurationFlag(command, "--min-client-ping-interval", &listen->min_client_ping_interval,
                  "Clients that ping more often are disconnected")
      ->group(kGroup);
  AddNumber(command, "--max-concurrent-streams", &listen->max_concurrent_streams,
            "Calls at once on one connection; more wait", {.least = 1, .most = 1 << 20})
      ->group(kGroup);
}

void AddLimitFlags(CLI::App& command, EngineOptions* engine) {
  constexpr char kGroup[] = "Limits";
  const auto add = [&](const char* name, int64_t* value, const char* help, int64_t least = 0) {
    AddNumber(command, name, value, help, {.least = least, .most = int64_t{1} << 53})->group(kGroup);
  };
  add("--max-num-queued-reqs", &engine->max_num_queued_reqs,
      "Requests that may wait for a slot; then RESOURCE_EXHAUSTED", 1);
  add("--max-num-queued-tokens", &engine->max_num_queued_tokens, "Prompt tokens that may wait; then RESOURCE_EXHAUSTED",
      1);
  add("--max-requests-per-principal", &engine->max_requests_per_principal,
      "Running and waiting requests of one caller; 0: no limit");
  add("--max-prompt-tokens", &engine->max_prompt_tokens, "Longest prompt; 0: no limit");
  add("--max-output-tokens", &engine->max_output_tokens, "Longest output; 0: no limit");
  AddNumber(command, "--min-priority", &engine->min_priority,
            "The lowest priority number, hence the most urgent, that a request may ask for",
            {.least = kLowestPriority, .most = kHighestPriority})
      ->group(kGroup);
  AddDurationFlag(
      command, "--slow-reader-timeout", &engine->slow_reader_timeout,
      "A sequence whose events are not read pauses, keeps its slot this long, then ends with DEADLINE_EXCEEDED")
      ->group(kGroup);
}

void AddPrefixFlags(CLI::App& command, ServeOptions* options) {
  constexpr char kGroup[] = "Shared prefixes";
  command
      .add_flag("--enable-prefix-caching,!--no-enable-prefix-caching", options->enable_prefix_caching,
                "Keep states of prompts, and start from one where a prompt begins as an earlier one of the same caller "
                "did. Same answers, less work. On by default")
      ->group(kGroup);
  AddBytesFlag(
      command, "--prefix-cache-memory", &options->prefix_cache.memory_bytes,
      "Host memory for those states; with --session-dir up to eight times as much of that disk takes what has to "
      "leave. 0: as much as all sequences', at most a quarter of what is free")
      ->group(kGroup);
  command
      .add_option("--cache-salt", options->prefix_cache.salt,
                  "Part of what keeps prefixes apart, beside the caller and the request's own salt")
      ->type_name("TEXT")
      ->group(kGroup);
}

void AddSnapshotMemoryFlag(CLI::App& command, ServeOptions* options) {
  AddBytesFlag(
      command, "--snapshot-page-locked-memory", &options->page_locked_bytes,
      "On a GPU: page-locked (pinned) host memory for long snapshots of sessions and prefixes, which move at the "
      "link's rate there as long as some is free. It is taken at the start. 0: for 16 of them, at most an "
      "eighth of what is free; less than one takes: none")
      ->group("Sessions");
}

void AddOperationFlags(CLI::App& command, ServeOptions* options) {
  constexpr char kGroup[] = "Operation";
  command
      .add_option("--auth-tokens-file", options->auth_tokens_file,
                  "Ask for bearer tokens: one `<principal> <token>` per line, none twice; read again on SIGHUP")
      ->type_name("FILE")
      ->group(kGroup);
  command
      .add_option(
          "--operators", options->operators,
          "Callers, by the name that their token or certificate has, that may collect garbage and break anybody's "
          "lease. Default: those without a name, on a server that asks for none")
      ->delimiter(',')
      ->type_name("NAME,...")
      ->group(kGroup);
  AddNumber(command, "--metrics-port", &options->metrics_port, "Port of /metrics (Prometheus) and /health; 0: none",
            {.least = 0, .most = 65535})
      ->group(kGroup);
  command.add_option("--metrics-host", options->metrics_host, "Address of that port")
      ->type_name("HOST")
      ->capture_default_str()
      ->group(kGroup);
  AddDurationFlag(command, "--shutdown-timeout", &options->shutdown_timeout,
                  "After SIGTERM or SIGINT: how long requests in flight may go on; a second signal ends at once")
      ->group(kGroup);
  command.add_option("--log-format", options->log_format, "text, or json: one object per line")
      ->check(OneOf({"text", "json"}))
      ->capture_default_str()
      ->group(kGroup);
  command
      .add_flag("--log-prompts", options->log_prompts,
                "Write prompts to the log; off, the log never holds what users say")
      ->group(kGroup);
}

}  // namespace

void AddServeCommand(CLI::App& root, CommandActions* actions) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* const command = root.add_subcommand("serve", "Serve a model over gRPC");
  command->footer(
      "Examples:\n"
      "  statehouse serve --model models/demo/checkpoint\n"
      "  statehouse serve --model models/demo/checkpoint --session-dir /var/lib/statehouse\n"
      "  statehouse serve --model DIR --state-memory 8GiB --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem\n");
  AddModelFlags(*command, &options->model);
  command
      ->add_option("--served-model-name", options->served_model_name,
                   "The name clients ask for; by default the directory's")
      ->type_name("NAME")
      ->group("Model");
  AddEngineFlags(*command, &options->engine);
  AddListenFlags(*command, &options->listen);
  AddConnectionFlags(*command, &options->listen);
  AddLimitFlags(*command, &options->engine);
  AddSessionFlags(*command, &options->sessions);
  AddPrefixFlags(*command, options.get());
  AddSnapshotMemoryFlag(*command, options.get());
  AddOperationFlags(*command, options.get());
  (*actions)[command] = [options] { return RunServe(*options); };
}

}  // namespace statehouse
