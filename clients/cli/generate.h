// `statehouse generate`: one prompt in, its completion on stdout.
#pragma once

#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "clients/cli/generate_backend.h"
#include "clients/cli/interrupts.h"
#include "clients/cli/terminal.h"
#include "statehouse/v1/generation.pb.h"

namespace statehouse::cli {

// Where the prompt comes from. At most one of the three is set; none of them means standard input.
struct PromptSource {
  std::optional<std::string> text;
  std::string file;  // path; "-" is standard input
  std::optional<std::vector<int32_t>> prompt_ids;
};

// Puts the prompt into request.text or request.token_ids. INVALID_ARGUMENT if there are several or none; else
// ReadInput()'s errors, for what is larger than a message may be, too. A prompt of standard input must not come from a
// terminal unless asked for with "-".
absl::Status ReadPrompt(const PromptSource& source, v1::GenerateRequest* request);

struct GenerateOptions {
  bool json = false;     // one object on `out` instead of the text
  bool verbose = false;  // a line of figures on `err` at the end
};

// Runs `request` and prints to `out`; several outputs are printed one after another under a heading each. Ctrl-C ends
// it. Returns the exit status of the program: 0, 1 on an error (said on `err`), 130 on Ctrl-C.
int Generate(GenerateBackend& backend, const v1::GenerateRequest& request, const GenerateOptions& options,
             Interrupts& interrupts, std::FILE* out, std::FILE* err);

// "statehouse: <message>" on `err`, in red on a terminal.
void PrintError(std::FILE* err, const absl::Status& status);
// "37 tokens · 41.2 tok/s · first token 120 ms": what an answer took. `tokens` of all outputs.
std::string SpeedLine(const v1::Usage& usage, const v1::Timings& timings);

}  // namespace statehouse::cli
