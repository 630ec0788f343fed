#include "clients/cli/client_commands.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "clients/cli/chat.h"
#include "clients/cli/connection_flags.h"
#include "clients/cli/flag_sources.h"
#include "clients/cli/generate.h"
#include "clients/cli/inspect.h"
#include "clients/cli/list_flags.h"
#include "clients/cli/request_flags.h"
#include "clients/cli/resuming_backend.h"
#include "clients/cli/scripted_reader.h"
#include "clients/cli/session_commands.h"
#include "clients/cli/wire_backend.h"
#include "clients/flags/number_flags.h"

namespace statehouse::cli {
namespace {

// Says on standard error that a server was lost and is asked again.
ResumingBackend::Options TellOfLosses() {
  ResumingBackend::Options options;
  options.on_loss = [](const absl::Status& status) {
    PrintError(stderr, absl::Status(status.code(), absl::StrCat("the server was lost; asking until one answers: ",
                                                                std::string(status.message()))));
  };
  return options;
}

void AddSessionFlag(CLI::App& command, const char* group, std::string* session) {
  command
      .add_option("--session", *session,
                  "Go on with this session of the server, by name or id; it is made if there is none of that name")
      ->group(group)
      ->type_name("NAME");
}

struct ChatFlags {
  ChatOptions options;
  std::string session;
  std::string history;
  std::string model;
  std::vector<std::string> say;
};

int RunChat(const Connection& connection, ChatFlags& flags) {
  absl::StatusOr<v1::Model> model = GetModel(connection, flags.model);
  if (!model.ok()) return Fail(model.status());
  if (model->chat_template().empty()) {
    return Fail(absl::FailedPreconditionError(
        absl::StrCat("the model \"", model->name(),
                     "\" has no chat template. Use statehouse generate, or start the server with --chat-template")));
  }
  flags.options.model = *std::move(model);
  flags.options.request.set_model(flags.model);
  flags.options.terminal = isatty(STDIN_FILENO) == 1 ? Terminal::Detect(STDOUT_FILENO) : Terminal();
  Interrupts interrupts;
  WireBackend wire(&connection);
  ResumingBackend backend(&wire, TellOfLosses());
  WireChatSession session(&connection, flags.session, flags.options.model.chat_template());
  if (!flags.session.empty()) flags.options.session = &session;
  std::unique_ptr<LineReader> reader = MakeLineReader(interrupts, flags.history);
  if (!flags.say.empty()) {
    constexpr std::chrono::milliseconds kTypingPause{25};
    ScriptedReader::Options typing;
    if (flags.options.terminal.is_terminal()) typing.pause_per_character = kTypingPause;
    reader = std::make_unique<ScriptedReader>(flags.say, std::move(reader), interrupts, typing);
  }
  Chat chat(backend, interrupts, flags.options);
  if (absl::Status status = chat.Resume(); !status.ok()) return Fail(status);
  return chat.Run(*reader);
}

void AddChat(CLI::App& root, Actions* actions) {
  CLI::App* command = root.add_subcommand("chat",
                                          "Talk with the served model. Answers stream; Ctrl-C stops an answer, Ctrl-D "
                                          "leaves. In a pipe each line is one message.");
  auto flags = std::make_shared<ChatFlags>();
  flags->history = DefaultHistoryFile().string();
  command->add_option("--system,-s", flags->options.system, "System message")->group("Conversation")->type_name("TEXT");
  AddSessionFlag(*command, "Conversation", &flags->session);
  command
      ->add_option("--history-file", flags->history,
                   "Where typed lines are kept; \"\" keeps none. Default: ~/.local/state/statehouse/chat_history")
      ->group("Conversation")
      ->type_name("[FILE]");
  AddTexts(*command, "Conversation", "--say", "Say this first, as if it were typed; may be given several times", "TEXT",
           [flags](const std::vector<std::string>& lines) { flags->say = lines; });
  AddSamplingFlags(*command, &flags->options.request);
  AddCacheFlags(*command, &flags->options.request);
  AddModelNameFlag(*command, &flags->model);
  AddServerCommand(*command, actions, [flags](const Connection& connection) { return RunChat(connection, *flags); });
  command->footer(
      "Examples:\n"
      "  statehouse chat\n"
      "  statehouse chat --session ada          # goes on where it was, also after a restart of the server\n"
      "  statehouse chat --address unix:/run/statehouse.sock --temperature 0\n"
      "  printf 'My name is Ada.\\nWhat is my name?\\n' | statehouse chat --seed 7");
}

struct GenerateFlags {
  PromptSource prompt;
  v1::GenerateRequest request;
  GenerateOptions options;
  std::string request_id;
  std::string model;
  ConnectionOptions connection;
  std::string session;
  std::string idempotency_key;
  bool allow_other_numeric = false;
  bool offline = false;
  std::vector<const CLI::Option*> offline_only;  // flags that nothing but --offline looks at
};

void AddGenerateSessionFlags(CLI::App& command, GenerateFlags* flags) {
  constexpr char kGroup[] = "Session";
  AddSessionFlag(command, kGroup, &flags->session);
  command
      .add_option("--idempotency-key", flags->idempotency_key,
                  "Names this turn: the same key brings the same answer, and appends it once. Default: a random one")
      ->group(kGroup)
      ->type_name("KEY");
  command
      .add_flag("--allow-other-numeric", flags->allow_other_numeric,
                "Go on although the session's numbers come from another numeric mode: not with the same bits then")
      ->group(kGroup);
}

absl::Status SetSession(const GenerateFlags& flags, v1::GenerateRequest* request) {
  if (flags.session.empty()) {
    if (flags.idempotency_key.empty() && !flags.allow_other_numeric) return absl::OkStatus();
    return absl::InvalidArgumentError("--idempotency-key and --allow-other-numeric are about a --session; name one");
  }
  if (flags.offline) return absl::InvalidArgumentError("--offline has no sessions; leave out --session or --offline");
  v1::SessionUse* use = request->mutable_session();
  use->set_session(flags.session);
  use->set_idempotency_key(flags.idempotency_key);
  use->set_create_if_missing(true);
  use->set_allow_other_numeric(flags.allow_other_numeric);
  return absl::OkStatus();
}

// A flag of --offline without it: the answer would come from a server that the user did not mean. Environment and
// config file may hold such for other commands.
absl::Status CheckOffline(const CLI::App& command, const GenerateFlags& flags) {
  if (flags.offline) return absl::OkStatus();
  for (const CLI::Option* option : flags.offline_only) {
    if (option->count() == 0 || !SourcesOf(command)->Of(*option).empty()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(option->get_name(),
                     " is about a model in this process: add --offline, or leave it out to ask the "
                     "server, which has its own model (see --served-model-name)"));
  }
  return absl::OkStatus();
}

int RunGenerate(const CLI::App& command, GenerateFlags& flags, const OfflineGeneration& offline) {
  if (absl::Status status = CheckOffline(command, flags); !status.ok()) return Fail(status);
  if (absl::Status status = ReadPrompt(flags.prompt, &flags.request); !status.ok()) return Fail(status);
  if (absl::Status status = SetSession(flags, &flags.request); !status.ok()) return Fail(status);
  if ((flags.request.has_logprobs() || flags.request.has_prompt_logprobs()) && !flags.options.json) {
    PrintError(stderr, absl::InvalidArgumentError("--logprobs and --prompt-logprobs show with --json only"));
  }
  flags.request.set_model(flags.model);
  std::unique_ptr<Connection> connection;
  std::unique_ptr<GenerateBackend> backend;
  if (flags.offline) {
    absl::StatusOr<std::unique_ptr<GenerateBackend>> opened = offline.open(flags.request);
    if (!opened.ok()) return Fail(opened.status());
    backend = *std::move(opened);
  } else {
    absl::StatusOr<std::unique_ptr<Connection>> opened = Connection::Open(flags.connection);
    if (!opened.ok()) return Fail(opened.status());
    connection = *std::move(opened);
    backend = std::make_unique<WireBackend>(connection.get(), flags.request_id);
  }
  Interrupts interrupts;
  ResumingBackend::Options resume = TellOfLosses();
  resume.waits_for_first = false;  // there may be none
  ResumingBackend resuming(backend.get(), std::move(resume));
  return Generate(resuming, flags.request, flags.options, interrupts, stdout, stderr);
}

void AddGenerate(CLI::App& root, const OfflineGeneration& offline, Actions* actions) {
  CLI::App* command = root.add_subcommand("generate", "Complete a prompt. The text streams to standard output.");
  auto flags = std::make_shared<GenerateFlags>();
  command->add_option("PROMPT", flags->prompt.text, "The prompt; \"-\" or nothing: standard input");
  command->add_option("--file,-f", flags->prompt.file, "Read the prompt from a file; - is standard input")
      ->group("Prompt")
      ->type_name("FILE");
  AddIds(*command, "Prompt", "--prompt-ids", "The prompt as token ids",
         [flags](const std::vector<int32_t>& ids) { flags->prompt.prompt_ids = ids; });
  AddOutputFlags(*command, &flags->request);
  command
      ->add_flag("--json", flags->options.json,
                 "Print one JSON object at the end: prompt_token_ids, outputs, usage, timings")
      ->group("Output");
  command->add_flag("--verbose,-v", flags->options.verbose, "Print speed and seed to standard error at the end")
      ->group("Output");
  AddSamplingFlags(*command, &flags->request);
  AddGenerateSessionFlags(*command, flags.get());
  AddCacheFlags(*command, &flags->request);
  if (offline.open) {
    command
        ->add_flag("--offline", flags->offline,
                   "Run the engine in this process instead of asking a server; needs --model")
        ->group("In process (--offline)");
    const size_t first = command->get_options().size();
    offline.add_flags(*command);
    const std::vector<CLI::Option*> all = command->get_options();
    flags->offline_only.assign(all.begin() + static_cast<std::ptrdiff_t>(first), all.end());
  }
  AddModelNameFlag(*command, &flags->model);
  AddConnectionFlags(*command, &flags->connection);
  command
      ->add_option("--request-id", flags->request_id, "Name this request, for `statehouse cancel` and the server's log")
      ->group("Connection")
      ->type_name("ID");
  (*actions)[command] = [command, flags, offline] { return RunGenerate(*command, *flags, offline); };
  command->footer(
      "Examples:\n"
      "  statehouse generate 'def fibonacci(n):' --max-tokens 64 --temperature 0\n"
      "  statehouse generate --file main.py --suffix '    return result' --stop $'\\n\\n'\n"
      "  statehouse generate --prompt-ids 1,2,3 --json --logprobs 5 --n 2\n"
      "  statehouse generate --session notes 'And then' --max-tokens 32\n"
      "  statehouse generate --offline --model models/demo/checkpoint 'Hello' --seed 7");
}

void AddInspectionCommands(CLI::App& root, Actions* actions) {
  for (const auto& [name, help, show] :
       {std::tuple{"status", "What the server is, and how busy: slots, queue, memory.", &ShowStatus},
        std::tuple{"models", "What the server serves: sizes, state per sequence, tokenizer.", &ShowModels}}) {
    CLI::App* command = root.add_subcommand(name, help);
    auto json = std::make_shared<bool>(false);
    command->add_flag("--json", *json, "Print one JSON object")->group("Output");
    AddServerCommand(*command, actions, [json, show = show](const Connection& connection) {
      return ExitStatus(show(connection, *json, stdout));
    });
    command->footer(absl::StrCat("Examples:\n  statehouse ", name, "\n  statehouse ", name,
                                 " --address 10.0.0.5:50051 --tls --json"));
  }
  CLI::App* health = root.add_subcommand(
      "health", "Exit with 0 if the server answers SERVING, else with 1. For container health checks.");
  auto service = std::make_shared<std::string>();
  health
      ->add_option("--service", *service,
                   "A service's full name, such as statehouse.v1.Generation. Default: the server as a whole")
      ->group("Flags")
      ->type_name("NAME");
  AddServerCommand(*health, actions, [service](const Connection& connection) {
    return ExitStatus(CheckHealth(connection, *service, stdout));
  });
  health->footer("Examples:\n  statehouse health --timeout 2\n  statehouse health --service statehouse.v1.Generation");

  CLI::App* cancel = root.add_subcommand("cancel", "End a queued or running request.");
  auto id = std::make_shared<std::string>();
  cancel->add_option("REQUEST_ID", *id, "As the server reported it, or as --request-id named it")
      ->required()
      ->type_name("ID");
  AddServerCommand(*cancel, actions,
                   [id](const Connection& connection) { return ExitStatus(CancelRequest(connection, *id, stdout)); });
  cancel->footer("Examples:\n  statehouse cancel my-request-17");
}

struct TokenizeFlags {
  PromptSource source;
  TokenizeOptions options;
  std::vector<int32_t> ids;
  bool no_special_tokens = false;
  bool json = false;
};

void AddTokenizerCommands(CLI::App& root, Actions* actions) {
  CLI::App* tokenize =
      root.add_subcommand("tokenize", "Turn text into token ids, in the form that --prompt-ids takes.");
  auto flags = std::make_shared<TokenizeFlags>();
  tokenize->add_option("TEXT", flags->source.text, "The text; \"-\" or nothing: standard input");
  tokenize->add_option("--file,-f", flags->source.file, "Read the text from a file")->group("Flags")->type_name("FILE");
  tokenize->add_flag("--texts", flags->options.show_texts, "Print a line per token, with its text")->group("Flags");
  tokenize
      ->add_flag("--no-special-tokens", flags->no_special_tokens,
                 "Do not put the tokenizer's own start tokens before the text")
      ->group("Flags");
  tokenize
      ->add_flag("--parse-special-tokens", flags->options.parse_special_tokens,
                 "Read \"<|end|>\" and the like as special tokens")
      ->group("Flags");
  tokenize->add_flag("--json", flags->json, "Print one JSON object")->group("Flags");
  AddModelNameFlag(*tokenize, &flags->options.model);
  AddServerCommand(*tokenize, actions, [flags](const Connection& connection) {
    v1::GenerateRequest prompt;
    if (absl::Status status = ReadPrompt(flags->source, &prompt); !status.ok()) return Fail(status);
    flags->options.add_special_tokens = !flags->no_special_tokens;
    return ExitStatus(ShowTokens(connection, prompt.text(), flags->options, flags->json, stdout));
  });
  tokenize->footer("Examples:\n  statehouse tokenize 'Hello, world'\n  statehouse tokenize --texts --file main.py");

  CLI::App* detokenize = root.add_subcommand("detokenize", "Turn token ids into text.");
  auto back = std::make_shared<TokenizeFlags>();
  AddNumbers<int32_t>(*detokenize, "IDS", [back](const std::vector<int32_t>& ids) { back->ids = ids; },
                      "Token ids, separated by commas or blanks", {.least = 0})
      ->required()
      ->expected(1, CLI::detail::expected_max_vector_size)
      ->allow_extra_args()
      ->type_name("ID,ID,…");
  detokenize->add_flag("--show-special-tokens", back->options.parse_special_tokens, "Show special tokens in the text")
      ->group("Flags");
  detokenize->add_flag("--json", back->json, "Print one JSON object")->group("Flags");
  AddModelNameFlag(*detokenize, &back->options.model);
  AddServerCommand(*detokenize, actions, [back](const Connection& connection) {
    return ExitStatus(
        ShowText(connection, back->options.model, back->ids, back->options.parse_special_tokens, back->json, stdout));
  });
  detokenize->footer("Examples:\n  statehouse detokenize 1,2,3\n  statehouse detokenize 1,2,3 --show-special-tokens");
}

}  // namespace

void AddClientCommands(CLI::App& root, const OfflineGeneration& offline, Actions* actions) {
  AddChat(root, actions);
  AddGenerate(root, offline, actions);
  AddSessionCommands(root, actions);
  AddInspectionCommands(root, actions);
  AddTokenizerCommands(root, actions);
}

}  // namespace statehouse::cli
