#include "clients/cli/request_flags.h"

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/cli/list_flags.h"
#include "clients/flags/number_flags.h"

namespace statehouse::cli {
namespace {

constexpr char kSampling[] = "Sampling";
constexpr char kStopping[] = "Stopping";
constexpr char kOutput[] = "Output";
constexpr char kPrefixes[] = "Shared prefixes";

// "17=-2.5" to a token id and what is added to its logit.
absl::StatusOr<std::pair<int32_t, float>> ParseBias(const std::string& pair) {
  constexpr char kExpected[] = "ID=BIAS, a token id and a number, such as 17=-2.5";
  const size_t equals = pair.find('=');
  if (equals == std::string::npos) return NotAllowed(pair, kExpected);
  const std::string_view text = pair;
  const absl::StatusOr<int32_t> id = ParseNumber<int32_t>(text.substr(0, equals), {.least = 0});
  const absl::StatusOr<double> bias = ParseNumber<double>(text.substr(equals + 1));
  if (!id.ok() || !bias.ok()) return NotAllowed(pair, kExpected);
  return std::pair(*id, static_cast<float>(*bias));
}

template <typename T>
CLI::Option* AddInGroup(CLI::App& command, const char* group, const char* name, const char* help,
                        std::function<void(T)> set) {
  return AddNumber<T>(command, name, std::move(set), help)->group(group);
}

void AddStoppingFlags(CLI::App& command, v1::Stop* stop) {
  AddInGroup<int64_t>(command, kStopping, "--max-tokens,-m",
                      "Most tokens of one output. Default: the server's cap, else 1024",
                      [stop](int64_t v) { stop->set_max_tokens(v); });
  AddInGroup<int64_t>(command, kStopping, "--min-tokens",
                      "Before that many tokens nothing but --max-tokens ends an output. Default 0",
                      [stop](int64_t v) { stop->set_min_tokens(v); });
  AddTexts(command, kStopping, "--stop", "Text that ends an output; may be given up to 16 times", "TEXT",
           [stop](const std::vector<std::string>& v) { stop->mutable_strings()->Assign(v.begin(), v.end()); });
  AddIds(command, kStopping, "--stop-token-ids", "Token ids that end an output, beside end-of-sequence",
         [stop](const std::vector<int32_t>& v) { stop->mutable_token_ids()->Assign(v.begin(), v.end()); });
  command
      .add_flag_function(
          "--include-stop", [stop](int64_t v) { stop->set_include_matched(v > 0); },
          "Keep the stop text that matched in the output")
      ->group(kStopping);
  command
      .add_flag_function(
          "--ignore-eos", [stop](int64_t v) { stop->set_ignore_eos(v > 0); }, "Go on after end-of-sequence")
      ->group(kStopping);
}

}  // namespace

void AddSamplingFlags(CLI::App& command, v1::GenerateRequest* request) {
  v1::Sampling* sampling = request->mutable_sampling();
  AddInGroup<double>(command, kSampling, "--temperature,-t",
                     "0 … 100; 0 takes the likeliest token. Default: the checkpoint's, else 1",
                     [sampling](double v) { sampling->set_temperature(v); });
  AddInGroup<int64_t>(command, kSampling, "--top-k",
                      "Choose among that many likeliest tokens; 0 is off. Default: the checkpoint's, else 0",
                      [sampling](int64_t v) { sampling->set_top_k(v); });
  AddInGroup<double>(
      command, kSampling, "--top-p",
      "Choose among the likeliest tokens that hold this share, above 0 … 1. Default: the checkpoint's, else 1",
      [sampling](double v) { sampling->set_top_p(v); });
  AddInGroup<double>(command, kSampling, "--min-p",
                     "Drop tokens below this share of the likeliest one's, 0 … 1. Default: the checkpoint's, else 0",
                     [sampling](double v) { sampling->set_min_p(v); });
  AddInGroup<double>(
      command, kSampling, "--typical-p",
      "Choose among the most typical tokens that hold this share, above 0 … 1. Default: the checkpoint's, else 1",
      [sampling](double v) { sampling->set_typical_p(v); });
  AddInGroup<double>(command, kSampling, "--repetition-penalty",
                     "Above 0 … 10, over prompt and output; 1 is off. Default: the checkpoint's, else 1",
                     [sampling](double v) { sampling->set_repetition_penalty(v); });
  AddInGroup<double>(command, kSampling, "--presence-penalty", "-2 … 2, for tokens that the output holds. Default 0",
                     [sampling](double v) { sampling->set_presence_penalty(v); });
  AddInGroup<double>(command, kSampling, "--frequency-penalty",
                     "-2 … 2, for each time that the output holds a token. Default 0",
                     [sampling](double v) { sampling->set_frequency_penalty(v); });
  AddTexts(command, kSampling, "--logit-bias", "Add BIAS, -100 … 100, to a token's logit; may be given several times",
           "ID=BIAS", [sampling](const std::vector<std::string>& pairs) {
             for (const std::string& pair : pairs) {
               const auto bias = ParseBias(pair);
               if (!bias.ok()) throw CLI::ValidationError("--logit-bias", std::string(bias.status().message()));
               (*sampling->mutable_logit_bias())[bias->first] = bias->second;
             }
           });
  AddIds(
      command, kSampling, "--allowed-token-ids", "Choose among these token ids only",
      [sampling](const std::vector<int32_t>& v) { sampling->mutable_allowed_token_ids()->Assign(v.begin(), v.end()); });
  AddIds(
      command, kSampling, "--banned-token-ids", "Never choose these token ids",
      [sampling](const std::vector<int32_t>& v) { sampling->mutable_banned_token_ids()->Assign(v.begin(), v.end()); });
  AddInGroup<uint64_t>(command, kSampling, "--seed",
                       "Same seed, same tokens. Default: the server draws one and tells it",
                       [sampling](uint64_t v) { sampling->set_seed(v); });
  AddStoppingFlags(command, request->mutable_stop());
}

void AddCacheFlags(CLI::App& command, v1::GenerateRequest* request) {
  command
      .add_flag_function(
          "--bypass-cache", [request](int64_t v) { request->mutable_cache()->set_bypass(v > 0); },
          "Compute all of the prompt: look nothing up and keep nothing")
      ->group(kPrefixes);
  // The second name is what environment and config file call it: theirs is also the server's.
  command
      .add_option_function<std::string>(
          "--cache-salt,--request-cache-salt",
          [request](const std::string& v) { request->mutable_cache()->set_salt(v); },
          "Share prefixes only with requests of the same salt, up to 128 bytes")
      ->group(kPrefixes)
      ->type_name("TEXT");
}

void AddOutputFlags(CLI::App& command, v1::GenerateRequest* request) {
  AddInGroup<int32_t>(command, kOutput, "--n,-n", "Outputs for the prompt, 1 … 128. Default 1",
                      [request](int32_t v) { request->set_n(v); });
  AddInGroup<int32_t>(command, kOutput, "--logprobs",
                      "Log probabilities of the output's tokens, with that many of the likeliest, 0 … 20 (see --json)",
                      [request](int32_t v) { request->set_logprobs(v); });
  AddInGroup<int32_t>(command, kOutput, "--prompt-logprobs", "The same for the prompt's tokens",
                      [request](int32_t v) { request->set_prompt_logprobs(v); });
  AddInGroup<int32_t>(command, kOutput, "--priority", "-1000 … 1000; lower runs first. Default 0",
                      [request](int32_t v) { request->set_priority(v); });
  command
      .add_option_function<std::string>(
          "--suffix", [request](const std::string& v) { request->set_suffix(v); },
          "Fill in the middle: the text after the gap; the prompt is the text before it")
      ->group(kOutput)
      ->type_name("TEXT");
  command
      .add_flag_function(
          "--parse-special-tokens", [request](int64_t v) { request->set_parse_special_tokens(v > 0); },
          "Read \"<|end|>\" and the like in the prompt as special tokens")
      ->group(kOutput);
  command
      .add_flag_function(
          "--no-special-tokens", [request](int64_t v) { request->set_add_special_tokens(v <= 0); },
          "Do not put the tokenizer's own start tokens before the prompt")
      ->group(kOutput);
  command
      .add_flag_function(
          "--show-special-tokens", [request](int64_t v) { request->set_show_special_tokens(v > 0); },
          "Show special tokens in the text")
      ->group(kOutput);
}

}  // namespace statehouse::cli
