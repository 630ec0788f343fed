#include "clients/cli/connection_flags.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "clients/cli/generate.h"
#include "clients/flags/number_flags.h"

namespace statehouse::cli {
namespace {

constexpr char kConnection[] = "Connection";

}  // namespace

int Fail(const absl::Status& status) {
  PrintError(stderr, status);
  return 1;
}
int ExitStatus(const absl::Status& status) { return status.ok() ? 0 : Fail(status); }

void AddConnectionFlags(CLI::App& command, ConnectionOptions* options) {
  command.add_option("--address,-a", options->address, "The server: host:port, [v6]:port or unix:PATH")
      ->group(kConnection)
      ->type_name("ADDRESS")
      ->capture_default_str();
  command.add_flag("--tls", options->tls, "Speak TLS, trusting the system's authorities unless --tls-ca names one")
      ->group(kConnection);
  command.add_option("--tls-ca", options->tls_ca, "Authority that signed the server's certificate (PEM)")
      ->group(kConnection)
      ->type_name("FILE");
  command
      .add_option("--tls-client-cert", options->tls_cert,
                  "This client's certificate (PEM), where the server asks for one")
      ->group(kConnection)
      ->type_name("FILE");
  command.add_option("--tls-client-key", options->tls_key, "This client's private key (PEM)")
      ->group(kConnection)
      ->type_name("FILE");
  command
      .add_option("--tls-server-name", options->tls_server_name,
                  "Name to expect in the server's certificate, if not the address's")
      ->group(kConnection)
      ->type_name("NAME");
  command
      .add_option("--token", options->token, "Bearer token; better in the environment, where no process list shows it")
      ->group(kConnection)
      ->type_name("TOKEN");
  command
      .add_flag("--token-in-clear", options->token_in_clear,
                "Send the token to another machine without TLS, for instance where a tunnel encrypts")
      ->group(kConnection);
  constexpr double kYear = 365 * 24 * 3600;  // much longer, and the clock that deadlines are told in overflows
  AddNumber(command, "--timeout", &options->timeout_s, "Seconds that a call may take; 0: no limit",
            {.least = 0, .most = kYear})
      ->group(kConnection)
      ->type_name("SECONDS");
}

void AddModelNameFlag(CLI::App& command, std::string* name) {
  command
      .add_option("--served-model-name", *name, "The model, by the name that the server gave it. Default: the only one")
      ->group(kConnection)
      ->type_name("NAME");
}

// A command that needs a server: `run` gets the open connection.
void AddServerCommand(CLI::App& command, Actions* actions, std::function<int(const Connection&)> run) {
  auto options = std::make_shared<ConnectionOptions>();
  AddConnectionFlags(command, options.get());
  (*actions)[&command] = [options, run = std::move(run)] {
    absl::StatusOr<std::unique_ptr<Connection>> connection = Connection::Open(*options);
    return connection.ok() ? run(**connection) : Fail(connection.status());
  };
}

}  // namespace statehouse::cli
