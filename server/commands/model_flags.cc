#include "server/commands/model_flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "clients/flags/bytes.h"
#include "clients/flags/choices.h"
#include "clients/flags/number_flags.h"
#include "kernels/power_retention/layout.h"
#include "models/device.h"

namespace statehouse {
namespace {

std::string TemplateNames() {
  std::string names;
  for (const std::string_view name : ChatTemplate::Names()) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", std::string(name));
  }
  return names;
}

absl::StatusOr<int64_t> ParseSwitchOver(const std::string& text) {
  if (text == "auto") return kernels::kSwitchOverAuto;
  if (text == "never") return kernels::kNeverSwitch;
  if (const absl::StatusOr<int64_t> tokens = ParseNumber<int64_t>(text, {.least = 0}); tokens.ok()) return *tokens;
  return NotAllowed(text, "auto, never, or tokens (0 or a multiple of the model's chunk)");
}

absl::Status CheckTemplate(const std::string& name) {
  const auto names = ChatTemplate::Names();
  if (std::find(names.begin(), names.end(), name) != names.end()) return absl::OkStatus();
  return NotAllowed(name, "one of " + TemplateNames());
}

absl::Status WithFlag(const char* flag, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(flag, ": ", std::string(status.message())));
}

// A check that tells what `check` says.
CLI::Validator Checked(std::function<absl::Status(const std::string&)> check) {
  return CLI::Validator([check = std::move(check)](std::string& text) { return std::string(check(text).message()); },
                        "");
}

// Plain numbers are seconds.
bool ParseSeconds(const std::string& text, absl::Duration* value) {
  if (const absl::StatusOr<double> seconds = ParseNumber<double>(text); seconds.ok()) {
    *value = absl::Seconds(*seconds);
  } else if (!absl::ParseDuration(text, value)) {
    return false;
  }
  return *value >= absl::ZeroDuration() && *value <= absl::Hours(24 * 365);
}

}  // namespace

CLI::Option* AddDurationFlag(CLI::App& command, const std::string& name, absl::Duration* value,
                             const std::string& help) {
  const auto parse = [name, value](const std::string& text) {
    if (!ParseSeconds(text, value))
      throw CLI::ValidationError(
          name, std::string(NotAllowed(text, "a time up to 8760h (a year), such as 30s, 2m or 500ms").message()));
  };
  return command.add_option_function<std::string>(name, parse, help)
      ->type_name("TIME")
      ->default_str(absl::FormatDuration(*value));
}

CLI::Option* AddBytesFlag(CLI::App& command, const std::string& name, int64_t* value, const std::string& help) {
  return command
      .add_option_function<std::string>(
          name,
          [value](const std::string& text) {
            if (const absl::StatusOr<int64_t> bytes = ParseBytes(text); bytes.ok()) *value = *bytes;
          },
          help)
      ->check(Checked([](const std::string& text) { return ParseBytes(text).status(); }))
      ->type_name("BYTES")
      ->default_str(absl::StrCat(*value));
}

void AddModelFlags(CLI::App& command, ModelFlags* flags) {
  constexpr char kGroup[] = "Model";
  command
      .add_option("--model", flags->model,
                  "Checkpoint directory: config.json, safetensors files and tokenizer, as on Hugging Face")
      ->required()
      ->check(CLI::ExistingDirectory)
      ->type_name("DIR")
      ->group(kGroup);
  command
      .add_option("--dtype", flags->dtype,
                  "How weights are held: auto (as stored), f32, bf16, or int8 (quantised while loading)")
      ->check(OneOf({"auto", "f32", "bf16", "int8"}))
      ->capture_default_str()
      ->group(kGroup);
  command
      .add_option("--load-format", flags->load_format,
                  "auto reads the weights; dummy makes random ones from config.json alone, for sizing and benchmarks")
      ->check(OneOf({"auto", "dummy"}))
      ->capture_default_str()
      ->group(kGroup);
  command
      .add_option(
          "--switch-over", flags->switch_over,
          "Tokens from which on a sequence is held as a state: auto (the most whose rows fit in the state's memory), "
          "never, 0, or a multiple of the chunk")
      ->check(Checked([](const std::string& text) { return ParseSwitchOver(text).status(); }))
      ->type_name("TOKENS")
      ->capture_default_str()
      ->group(kGroup);
  AddNumber(command, "--max-tail-tokens", &flags->max_tail_tokens,
            "Most tokens of a sequence that has no state form (--switch-over never, or degree 4 with large heads)",
            {.least = 0, .most = int64_t{1} << 32})
      ->type_name("TOKENS")
      ->group(kGroup);
  command
      .add_option("--chat-template", flags->chat_template,
                  "How messages become a prompt: " + TemplateNames() + "; by default what the checkpoint names")
      ->check(Checked(CheckTemplate))
      ->type_name("NAME")
      ->group(kGroup);
  command
      .add_option(
          "--device", flags->device,
          "Where the model computes: auto (the first GPU, if there is one that can, else the CPU), cpu, cuda, or "
          "cuda:N for GPU number N")
      ->check(Checked([](const std::string& text) {
        return CheckDeviceName(text).ok() ? absl::OkStatus() : NotAllowed(text, "auto, cpu, cuda or cuda:N");
      }))
      ->type_name("DEVICE")
      ->capture_default_str()
      ->group(kGroup);
  command
      .add_flag("--deterministic", flags->deterministic,
                "On a GPU: a sequence's bits depend on its own tokens alone, as they always do on the CPU; slower")
      ->group(kGroup);
  AddNumber(command, "--gpu-memory-utilization", &flags->gpu_memory_utilization,
            "Share of the GPU's memory for weights, working memory and sequences, if nothing else says how many "
            "sequences run at once",
            {.least = 0.01, .most = 1.0})
      ->type_name("SHARE")
      ->group(kGroup);
  AddNumber(command, "--threads", &flags->threads, "Threads of the forward pass; 0: one per available core",
            {.least = 0, .most = 1024})
      ->group(kGroup);
}

void AddEngineFlags(CLI::App& command, EngineOptions* options) {
  constexpr char kGroup[] = "Capacity";
  AddBytesFlag(
      command, "--state-memory", &options->state_memory_bytes,
      "Memory for sequences' states; each running sequence takes the same, whatever its length. 0: from --max-num-seqs")
      ->group(kGroup);
  AddNumber(command, "--max-num-seqs", &options->max_num_seqs,
            "Sequences that run at once; 0: as many as --state-memory holds (if that is 0 too: 16, or on a GPU as "
            "many as its memory holds, at most 256)",
            {.least = 0, .most = 65536})
      ->group(kGroup);
  AddNumber(command, "--max-num-batched-tokens", &options->max_num_batched_tokens,
            "Rows of one step: decoding sequences first, then prompt chunks. More is faster prefill and longer gaps",
            {.least = 1, .most = 65536})
      ->group(kGroup);
}

absl::StatusOr<CheckpointOptions> ToCheckpointOptions(const ModelFlags& flags,
                                                      std::function<void(int64_t, int64_t)> progress) {
  CheckpointOptions options;
  using DType = LoadOptions::DType;
  if (flags.dtype == "f32") {
    options.load.dtype = DType::kF32;
  } else if (flags.dtype == "bf16") {
    options.load.dtype = DType::kBF16;
  } else if (flags.dtype == "int8") {
    options.load.dtype = DType::kInt8;
  } else if (flags.dtype != "auto") {
    return absl::InvalidArgumentError(absl::StrCat("--dtype: ", flags.dtype, "; expected auto, f32, bf16 or int8"));
  }
  if (absl::Status status = CheckDeviceName(flags.device); !status.ok()) return status;
  options.load.device = flags.device;
  options.load.deterministic = flags.deterministic;
  options.load.gpu_memory_utilization = flags.gpu_memory_utilization;
  options.load.dummy = flags.load_format == "dummy";
  const absl::StatusOr<int64_t> switch_over = ParseSwitchOver(flags.switch_over);
  if (!switch_over.ok()) return WithFlag("--switch-over", switch_over.status());
  options.load.switch_over = *switch_over;
  options.load.max_tail_tokens = flags.max_tail_tokens;
  options.load.progress = std::move(progress);
  options.load.on_warning = [](const std::string& warning) {
    std::fprintf(stderr, "statehouse: warning: %s\n", warning.c_str());
  };
  if (absl::Status status = CheckTemplate(flags.chat_template); !flags.chat_template.empty() && !status.ok()) {
    return WithFlag("--chat-template", status);
  }
  options.chat_template = flags.chat_template;
  return options;
}

}  // namespace statehouse
