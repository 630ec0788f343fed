#include "clients/cli/generate.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/connection.h"
#include "clients/cli/input_file.h"
#include "clients/cli/printing.h"
#include "clients/cli/response.h"

namespace statehouse::cli {
namespace {

constexpr int kExitInterrupted = 130;

// What else a request holds beside its prompt.
constexpr int64_t kOtherBytes = 1 << 16;

absl::Status ReadText(const std::string& file, std::string* text) {
  absl::StatusOr<std::string> contents =
      ReadInput(file == "-" ? "the prompt" : "--file", file, kLargestMessageBytes - kOtherBytes);
  if (!contents.ok()) return contents.status();
  *text = *std::move(contents);
  if (!text->empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the prompt is empty: ", file == "-" ? "standard input" : file, " had no text"));
}

// The text of a single output can be shown as it comes; several would run into each other.
class TextPrinter {
 public:
  TextPrinter(int num_outputs, std::FILE* out)
      : streams_(num_outputs == 1), terminal_(Terminal::Detect(fileno(out))), out_(out) {}

  void Show(const v1::GenerateEvent& event) {
    if (!streams_) return;
    Put(terminal_.Harmless(event.has_delta()      ? event.delta().text()
                           : event.has_finished() ? event.finished().text()
                                                  : std::string()));
  }
  void End(const v1::GenerateResponse& response) {
    if (!streams_) {
      for (const v1::Output& output : response.outputs()) {
        Put(absl::StrFormat("--- output %d (%s)\n%s\n", output.index(), FinishReasonName(output.reason()),
                            terminal_.Harmless(output.text())));
      }
    } else if (ends_inside_line_ && terminal_.is_terminal()) {
      Put("\n");
    }
  }

 private:
  void Put(const std::string& text) {
    if (text.empty()) return;
    Write(out_, text);
    ends_inside_line_ = text.back() != '\n';
  }
  const bool streams_;
  const Terminal terminal_;
  std::FILE* out_;
  bool ends_inside_line_ = false;
};

// True if tokens were generated, and none of them can be shown.
bool LacksText(const v1::GenerateResponse& response) {
  return response.usage().completion_tokens() > 0 &&
         std::all_of(response.outputs().begin(), response.outputs().end(),
                     [](const v1::Output& output) { return output.text().empty(); });
}

// A turn that did not end: what was shown of it need not be in the session.
void SayWhatStays(const std::optional<v1::SessionOutcome>& outcome, const v1::SessionUse& use, std::FILE* err) {
  const std::string session = absl::StrCat("the session ", use.session());
  if (!outcome.has_value()) {
    PrintError(err, absl::UnknownError(absl::StrCat("it is not known what ", session, " keeps of this turn")));
  } else if (outcome->committed()) {
    PrintError(err, absl::CancelledError(absl::StrFormat("%s keeps what was shown; it holds %d tokens now", session,
                                                         outcome->position())));
  } else {
    PrintError(err, absl::CancelledError(absl::StrFormat("%s keeps nothing of this turn; it holds %d tokens, as before",
                                                         session, outcome->position_before())));
  }
}

}  // namespace

absl::Status ReadPrompt(const PromptSource& source, v1::GenerateRequest* request) {
  const int sources = (source.text ? 1 : 0) + (source.file.empty() ? 0 : 1) + (source.prompt_ids ? 1 : 0);
  if (sources > 1) {
    return absl::InvalidArgumentError("give the prompt once: as an argument, with --file, or with --prompt-ids");
  }
  if (source.prompt_ids) {
    request->mutable_token_ids()->mutable_ids()->Add(source.prompt_ids->begin(), source.prompt_ids->end());
    return absl::OkStatus();
  }
  if (source.text && *source.text != "-") {
    request->set_text(*source.text);
    return absl::OkStatus();
  }
  if (sources == 0 && isatty(STDIN_FILENO) == 1) {
    return absl::InvalidArgumentError(
        "there is no prompt: give it as an argument, with --file or --prompt-ids, or pipe it in");
  }
  return ReadText(source.file.empty() ? "-" : source.file, request->mutable_text());
}

void PrintError(std::FILE* err, const absl::Status& status) {
  const Terminal terminal = Terminal::Detect(fileno(err));
  // A server's words, perhaps, and so anything.
  const std::string line = absl::StrCat(terminal.Paint(Style::kRed, "statehouse:"), " ",
                                        terminal.Harmless(std::string(status.message())), "\n");
  std::fwrite(line.data(), 1, line.size(), err);
  std::fflush(err);
}

std::string SpeedLine(const v1::Usage& usage, const v1::Timings& timings) {
  std::string line =
      absl::StrFormat("%d token%s", usage.completion_tokens(), usage.completion_tokens() == 1 ? "" : "s");
  // The first token belongs to the prefill: the rate is that of the ones after it.
  if (usage.completion_tokens() > 1 && timings.decode() > 0) {
    absl::StrAppend(
        &line, absl::StrFormat(" · %.1f tok/s", static_cast<double>(usage.completion_tokens() - 1) / timings.decode()));
  }
  if (usage.cached_tokens() > 0) {
    absl::StrAppend(&line, " · ", usage.cached_tokens(), " of ", usage.prompt_tokens(), " prompt tokens cached");
  }
  absl::StrAppend(&line, " · first token ", FormatSeconds(timings.time_to_first_token()));
  return line;
}

int Generate(GenerateBackend& backend, const v1::GenerateRequest& request, const GenerateOptions& options,
             Interrupts& interrupts, std::FILE* out, std::FILE* err) {
  ResponseCollector collector;
  TextPrinter printer(request.has_n() ? request.n() : 1, out);
  std::atomic<bool> interrupted{false};
  absl::Status status;
  backend.ForgetCancel();
  {
    Interrupts::Watch watch(interrupts, [&] {
      interrupted = true;
      backend.Cancel();
    });
    status = backend.Generate(request, [&](const v1::GenerateEvent& event) {
      collector.Add(event);
      if (!options.json) printer.Show(event);
      if (std::ferror(out) != 0) backend.Cancel();  // nobody reads any more, as in `generate | head`
    });
  }
  if (options.json) {
    Print(out, ResponseJson(collector.response(), status) + "\n");
  } else {
    printer.End(collector.response());
  }
  const bool has_begun = interrupted || backend.FailedOutcome().has_value() || !collector.response().outputs().empty();
  if (!status.ok() && request.has_session() && has_begun) {
    SayWhatStays(backend.FailedOutcome(), request.session(), err);
  }
  if (interrupted) return kExitInterrupted;
  if (std::ferror(out) != 0) return 0;  // FinishOutput() tells whether that is a failure
  if (!status.ok()) {
    PrintError(err, status);
    return 1;
  }
  if (!options.json && LacksText(collector.response())) {
    PrintError(err, absl::NotFoundError(absl::StrFormat(
                        "the answer holds %d token%s and no text: the model has no tokenizer, or they are "
                        "special tokens; --json shows their ids",
                        collector.response().usage().completion_tokens(),
                        collector.response().usage().completion_tokens() == 1 ? "" : "s")));
  }
  if (options.verbose) {
    const v1::GenerateResponse& response = collector.response();
    const std::string line =
        absl::StrFormat("%s · seed %u\n", SpeedLine(response.usage(), response.timings()), response.seed());
    std::fputs(Terminal::Detect(fileno(err)).Paint(Style::kDim, line).c_str(), err);
    if (!response.cache().explanation().empty()) {
      // The server's words, and so perhaps anything.
      const std::string cache =
          absl::StrCat("cache: ", Terminal::Detect(fileno(err)).Harmless(response.cache().explanation()), "\n");
      std::fputs(Terminal::Detect(fileno(err)).Paint(Style::kDim, cache).c_str(), err);
    }
  }
  return 0;
}

}  // namespace statehouse::cli
