#include "models/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "models/tokenizer/regex_syntax.h"
#include "models/tokenizer/utf8.h"

namespace statehouse {
namespace {

constexpr size_t kLongestPattern = 16 << 10;
// Per match: a run of this many spaces or letters takes about one step each, so texts of megabytes stay far below it.
constexpr uint32_t kMatchLimit = 100'000'000;
// KiB of memory that a match may take when it does not run as machine code.
constexpr uint32_t kHeapLimitKib = 256 << 10;

struct FreeMatchData {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct FreeMatchContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

std::string ErrorText(int code) {
  PCRE2_UCHAR buffer[256];
  const int length = pcre2_get_error_message(code, buffer, sizeof(buffer));
  return length < 0 ? absl::StrCat("error ", code)
                    : std::string(reinterpret_cast<char*>(buffer), static_cast<size_t>(length));
}

}  // namespace

struct Regex::Code {
  ~Code() { pcre2_code_free(code); }
  pcre2_code* code = nullptr;
  std::string where;
};

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern, const std::string& where) {
  absl::StatusOr<std::string> translated = TranslateRegex(pattern, where);
  if (!translated.ok()) return translated.status();
  return CompileTranslated(*translated, where);
}

absl::StatusOr<Regex> Regex::Literal(std::string_view text, const std::string& where) {
  if (WellFormedPrefix(text) != text.size()) return absl::InvalidArgumentError(absl::StrCat(where, ": not UTF-8"));
  return CompileTranslated(QuoteRegex(text), where);
}

absl::StatusOr<Regex> Regex::CompileTranslated(const std::string& pattern, const std::string& where) {
  if (pattern.size() > kLongestPattern) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": the regular expression is longer than ", kLongestPattern, " bytes"));
  }
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_shared<Code>();
  code->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_UTF_CHECK, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (code->code == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": not a regular expression: ", ErrorText(error)));
  }
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);  // where it cannot, matching interprets
  code->where = where;
  Regex regex;
  regex.code_ = std::move(code);
  return regex;
}

absl::Status Regex::FindAll(std::string_view text, std::vector<TextRange>* matches) const {
  const std::unique_ptr<pcre2_match_data, FreeMatchData> data(pcre2_match_data_create(1, nullptr));
  const std::unique_ptr<pcre2_match_context, FreeMatchContext> context(pcre2_match_context_create(nullptr));
  if (data == nullptr || context == nullptr) return absl::ResourceExhaustedError("no memory for a regular expression");
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);

  const PCRE2_SPTR subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t from = 0;
  size_t last_end = std::string_view::npos;
  while (from <= text.size()) {
    int result = pcre2_match(code_->code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, data.get(), context.get());
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) {
      // The machine code keeps what it may go back to on a small stack; the interpreter keeps it on the heap.
      result = pcre2_match(code_->code, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data.get(),
                           context.get());
    }
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      return absl::InvalidArgumentError(absl::StrCat(code_->where,
                                                     ": the regular expression does not finish on the text at byte ",
                                                     from, " of ", text.size(), ": ", ErrorText(result)));
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
    if (ends[0] == ends[1] && ends[1] == last_end) {
      const int length = FirstCharacterLength(text.substr(from));
      from += static_cast<size_t>(length > 0 ? length : 1);
      continue;
    }
    matches->push_back({ends[0], ends[1]});
    from = last_end = ends[1];
  }
  return absl::OkStatus();
}

}  // namespace statehouse
