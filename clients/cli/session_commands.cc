#include "clients/cli/session_commands.h"

#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "clients/cli/connection_flags.h"
#include "clients/cli/list_flags.h"
#include "clients/cli/session_calls.h"
#include "clients/cli/session_transfer.h"
#include "clients/flags/choices.h"
#include "clients/flags/number_flags.h"

namespace statehouse::cli {
namespace {

constexpr char kSession[] = "Session";
constexpr char kOutput[] = "Output";

// A command under `sessions` with --json and the connection's flags. `run` gets what it is to print and how.
template <typename Flags>
CLI::App* AddCommand(CLI::App& sessions, Actions* actions, const char* name, const char* help,
                     const std::shared_ptr<Flags>& flags,
                     absl::Status (*run)(const Connection&, Flags&, const Printing&)) {
  CLI::App* command = sessions.add_subcommand(name, help);
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "Print one JSON object")->group(kOutput);
  AddServerCommand(*command, actions, [flags, json, run](const Connection& connection) {
    return ExitStatus(run(connection, *flags, {.json = *json, .out = stdout}));
  });
  return command;
}

void AddReference(CLI::App& command, std::string* session) {
  command.add_option("SESSION", *session, "Its name or id")->required()->type_name("NAME");
}

// "key=value" words to a map.
std::map<std::string, std::string> ToLabels(const char* flag, const std::vector<std::string>& words) {
  std::map<std::string, std::string> labels;
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0) {
      throw CLI::ValidationError(flag, std::string(NotAllowed(word, "KEY=VALUE, such as project=atlas").message()));
    }
    labels[word.substr(0, equals)] = word.substr(equals + 1);
  }
  return labels;
}

// What a new session is to be like.
void AddSpecFlags(CLI::App& command, v1::CreateSessionRequest* spec) {
  AddTexts(command, kSession, "--label", "Put a label on it; may be given several times", "KEY=VALUE",
           [spec](const std::vector<std::string>& words) {
             for (const auto& [key, value] : ToLabels("--label", words)) (*spec->mutable_labels())[key] = value;
           });
  command
      .add_option_function<std::string>(
          "--durability",
          [spec](const std::string& name) {
            spec->set_durability(name == "memory"  ? v1::DURABILITY_MEMORY
                                 : name == "async" ? v1::DURABILITY_ASYNC
                                                   : v1::DURABILITY_SYNC);
          },
          "What a crash may cost: memory (everything), async (the last moments), sync (nothing). Default: the server's")
      ->group(kSession)
      ->type_name("KIND")
      ->check(OneOf({"memory", "async", "sync"}));
  AddNumber<double>(command, "--ttl", [spec](double seconds) { spec->set_ttl_seconds(seconds); },
                    "Seconds without a turn after which it goes, unless pinned. Default: never",
                    {.least = 0, .above = true})
      ->group(kSession)
      ->type_name("SECONDS");
  command
      .add_flag_function(
          "--pin", [spec](int64_t n) { spec->set_pinned(n > 0); }, "Keep it whatever its time to live")
      ->group(kSession);
  command
      .add_flag_function(
          "--share", [spec](int64_t n) { spec->set_shared(n > 0); }, "Let other principals read and fork it")
      ->group(kSession);
}

void AddListing(CLI::App& sessions, Actions* actions) {
  struct ListFlags {
    std::map<std::string, std::string> labels;
    int64_t limit = 0;
  };
  auto list = std::make_shared<ListFlags>();
  CLI::App* ls = AddCommand<ListFlags>(sessions, actions, "ls", "List your sessions.", list,
                                       [](const Connection& connection, ListFlags& f, const auto& p) {
                                         return ListSessions(connection, f.labels, f.limit, p);
                                       });
  AddTexts(*ls, kSession, "--label", "Only those with this label; may be given several times", "KEY=VALUE",
           [list](const std::vector<std::string>& words) { list->labels = ToLabels("--label", words); });
  AddNumber(*ls, "--limit", &list->limit, "At most so many; 0: all", {.least = 0})->group(kSession);
  ls->footer("Examples:\n  statehouse sessions ls\n  statehouse sessions ls --label project=atlas --json");

  struct ShowFlags {
    std::string session;
    ShowOptions options;
  };
  auto show = std::make_shared<ShowFlags>();
  CLI::App* command = AddCommand<ShowFlags>(
      sessions, actions, "show", "Show one session: size, checkpoints, lease; with --transcript what was said.", show,
      [](const Connection& connection, ShowFlags& f, const auto& p) {
        return ShowSession(connection, f.session, f.options, p);
      });
  AddReference(*command, &show->session);
  command->add_flag("--transcript,-t", show->options.transcript, "Bring the text, too; with --json also the token ids")
      ->group(kOutput);
  AddNumber(*command, "--from", &show->options.from, "Transcript from this position on", {.least = 0})
      ->group(kOutput)
      ->type_name("POSITION");
  command->footer("Examples:\n  statehouse sessions show ada\n  statehouse sessions show ada --transcript");
}

void AddCreation(CLI::App& sessions, Actions* actions) {
  auto spec = std::make_shared<v1::CreateSessionRequest>();
  CLI::App* create =
      AddCommand<v1::CreateSessionRequest>(sessions, actions, "create", "Make an empty session and print its id.", spec,
                                           [](const Connection& connection, v1::CreateSessionRequest& f,
                                              const auto& p) { return CreateSession(connection, f, p); });
  create
      ->add_option_function<std::string>(
          "NAME", [spec](const std::string& name) { spec->set_name(name); },
          "Its name; without one only the id names it")
      ->type_name("NAME");
  AddSpecFlags(*create, spec.get());
  create->footer("Examples:\n  statehouse sessions create ada --durability sync --label project=atlas");

  auto fork = std::make_shared<v1::ForkSessionRequest>();
  CLI::App* command = AddCommand<v1::ForkSessionRequest>(
      sessions, actions, "fork", "Make a new session from the beginning of another. Copies no snapshot.", fork,
      [](const Connection& connection, v1::ForkSessionRequest& f, const auto& p) {
        return ForkSession(connection, f, p);
      });
  command
      ->add_option_function<std::string>(
          "SESSION", [fork](const std::string& name) { fork->set_session(name); }, "The source's name or id")
      ->required()
      ->type_name("NAME");
  command
      ->add_option_function<std::string>(
          "NAME", [fork](const std::string& name) { fork->mutable_as()->set_name(name); }, "The new session's name")
      ->type_name("NAME");
  AddNumber<int64_t>(*command, "--at", [fork](int64_t position) { fork->set_position(position); },
                     "Take the first so many tokens. Default: all", {.least = 0})
      ->group(kSession)
      ->type_name("POSITION");
  AddSpecFlags(*command, fork->mutable_as());
  command->footer("Examples:\n  statehouse sessions fork ada ada-2\n  statehouse sessions fork ada --at 1024");
}

void AddRewinding(CLI::App& sessions, Actions* actions) {
  struct RewindFlags {
    std::string session;
    RewindTarget target;
  };
  auto rewind = std::make_shared<RewindFlags>();
  CLI::App* command =
      AddCommand<RewindFlags>(sessions, actions, "rewind", "Forget the end of a session, by position or by turns.",
                              rewind, [](const Connection& connection, RewindFlags& f, const auto& p) -> absl::Status {
                                if (f.target.position.has_value() == (f.target.turns > 0)) {
                                  return absl::InvalidArgumentError("say where to: give either --to or --turns");
                                }
                                return RewindSession(connection, f.session, f.target, p);
                              });
  AddReference(*command, &rewind->session);
  AddNumber<int64_t>(*command, "--to", [rewind](int64_t position) { rewind->target.position = position; },
                     "Keep the first so many tokens", {.least = 0})
      ->group(kSession)
      ->type_name("POSITION");
  AddNumber<int64_t>(*command, "--turns", [rewind](int64_t turns) { rewind->target.turns = turns; },
                     "Forget the last so many turns", {.least = 1})
      ->group(kSession);
  command->add_flag("--dry-run", rewind->target.dry_run, "Only say what it would cost")->group(kSession);
  command->footer(
      "Examples:\n  statehouse sessions rewind ada --turns 1\n  statehouse sessions rewind ada --to 512 --dry-run");

  auto rebuild = std::make_shared<std::string>();
  command = AddCommand<std::string>(
      sessions, actions, "rebuild",
      "Compute a session's state anew from its tokens, under the weights that are served now.", rebuild,
      [](const Connection& connection, std::string& f, const auto& p) { return RebuildSession(connection, f, p); });
  AddReference(*command, rebuild.get());
  command->footer("Examples:\n  statehouse sessions rebuild ada");
}

void AddTransfer(CLI::App& sessions, Actions* actions) {
  auto out = std::make_shared<ExportOptions>();
  CLI::App* command = AddCommand<ExportOptions>(
      sessions, actions, "export", "Write a session to a file. A transfer that broke off goes on where it ended.", out,
      [](const Connection& connection, ExportOptions& f, const auto& p) { return ExportSession(connection, f, p); });
  command
      ->add_option_function<std::string>(
          "SESSION", [out](const std::string& name) { out->request.set_session(name); }, "Its name or id")
      ->required()
      ->type_name("NAME");
  command
      ->add_option("FILE", out->file,
                   "The file to write, or - for standard output; a pipe or a device is written in place")
      ->required()
      ->type_name("FILE");
  AddNumber<int32_t>(*command, "--compression", [out](int32_t level) { out->request.set_compression(level); },
                     "zstd level, 1 … 19; 0: none. Default 0", {.least = 0, .most = 19})
      ->group(kSession)
      ->type_name("LEVEL");
  command
      ->add_option_function<std::string>(
          "--encoding",
          [out](const std::string& name) {
            out->request.set_encoding(name == "bf16"   ? v1::SNAPSHOT_ENCODING_BF16
                                      : name == "int8" ? v1::SNAPSHOT_ENCODING_INT8
                                                       : v1::SNAPSHOT_ENCODING_EXACT);
          },
          "exact keeps every bit; bf16 and int8 are smaller, and declared lossy. Default exact")
      ->group(kSession)
      ->type_name("KIND")
      ->check(OneOf({"exact", "bf16", "int8"}));
  command->add_flag("--overwrite", out->overwrite, "Replace a file that is there")->group(kSession);
  command->footer(
      "Examples:\n  statehouse sessions export ada ada.session\n  statehouse sessions export ada ada.session "
      "--compression 3\n  statehouse sessions export ada - | ssh host statehouse sessions import - ada");

  auto in = std::make_shared<ImportOptions>();
  command = AddCommand<ImportOptions>(
      sessions, actions, "import", "Make a session from a file that export wrote.", in,
      [](const Connection& connection, ImportOptions& f, const auto& p) { return ImportSession(connection, f, p); });
  command->add_option("FILE", in->file, "The file, or - for standard input")->required()->type_name("FILE");
  command
      ->add_option_function<std::string>(
          "NAME", [in](const std::string& name) { in->header.mutable_as()->set_name(name); }, "The session's name here")
      ->type_name("NAME");
  command
      ->add_flag_function(
          "--allow-other-numeric", [in](int64_t n) { in->header.set_allow_other_numeric(n > 0); },
          "Take it although its numbers come from another numeric mode: it goes on, but not with the same bits")
      ->group(kSession);
  AddSpecFlags(*command, in->header.mutable_as());
  command->footer("Examples:\n  statehouse sessions import ada.session ada --durability sync");
}

void AddUpkeep(CLI::App& sessions, Actions* actions) {
  auto doomed = std::make_shared<std::vector<std::string>>();
  CLI::App* command = AddCommand<std::vector<std::string>>(
      sessions, actions, "rm", "Delete sessions: journal, snapshots, everything.", doomed,
      [](const Connection& connection, std::vector<std::string>& f, const auto& p) {
        return DeleteSessions(connection, f, p);
      });
  command->add_option("SESSION", *doomed, "Names or ids")->required()->type_name("NAME");
  command->footer("Examples:\n  statehouse sessions rm ada ada-2");

  struct PinFlags {
    std::string session;
    bool off = false;
  };
  auto pin = std::make_shared<PinFlags>();
  command = AddCommand<PinFlags>(sessions, actions, "pin", "Keep a session whatever its time to live.", pin,
                                 [](const Connection& connection, PinFlags& f, const auto& p) {
                                   v1::UpdateSessionRequest request;
                                   request.set_session(f.session);
                                   request.set_pinned(!f.off);
                                   return UpdateSession(connection, request, p);
                                 });
  AddReference(*command, &pin->session);
  command->add_flag("--off", pin->off, "Let its time to live count again")->group(kSession);
  command->footer("Examples:\n  statehouse sessions pin ada\n  statehouse sessions pin ada --off");

  auto check = std::make_shared<std::string>();
  command = AddCommand<std::string>(
      sessions, actions, "check",
      "Read all that is stored of your sessions and say what is damaged. Exit status 1 then.", check,
      [](const Connection& connection, std::string& f, const auto& p) { return CheckSessions(connection, f, p); });
  command->add_option("SESSION", *check, "Only this one")->type_name("NAME");
  command->footer("Examples:\n  statehouse sessions check\n  statehouse sessions check ada --json");

  auto nothing = std::make_shared<int>(0);
  command = AddCommand<int>(
      sessions, actions, "gc", "Remove what no session refers to any more, and sessions that outlived their time.",
      nothing, [](const Connection& connection, int&, const auto& p) { return CollectGarbage(connection, p); });
  command->footer("Examples:\n  statehouse sessions gc");

  auto leased = std::make_shared<std::string>();
  command = AddCommand<std::string>(
      sessions, actions, "break-lease", "End the lease that a dead replica left on a session, before it runs out.",
      leased, [](const Connection& connection, std::string& f, const auto& p) { return BreakLease(connection, f, p); });
  AddReference(*command, leased.get());
  command->footer("Examples:\n  statehouse sessions break-lease ada");
}

}  // namespace

void AddSessionCommands(CLI::App& root, Actions* actions) {
  CLI::App* sessions = root.add_subcommand(
      "sessions", "Conversations that the server keeps: list, fork, rewind, export and more. See chat --session.");
  sessions->footer(
      "Examples:\n"
      "  statehouse chat --session ada          # makes it, or goes on with it\n"
      "  statehouse sessions ls\n"
      "  statehouse sessions rewind ada --turns 1");
  AddListing(*sessions, actions);
  AddCreation(*sessions, actions);
  AddRewinding(*sessions, actions);
  AddTransfer(*sessions, actions);
  AddUpkeep(*sessions, actions);
}

}  // namespace statehouse::cli
