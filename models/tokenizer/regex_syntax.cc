#include "models/tokenizer/regex_syntax.h"

#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "models/json.h"  // QuotedName
#include "models/tokenizer/unicode_tables.h"
#include "models/tokenizer/utf8.h"

namespace statehouse {
namespace {

constexpr std::string_view kPunctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

bool IsHexDigit(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// The members of general category `name` ("L", "Lu", …) that PCRE2 may not know, as class members.
std::string NewMembers(std::string_view name) {
  std::string out;
  for (const CategoryRange& range : NewCharacters()) {
    if (!std::string_view(range.category).starts_with(name)) continue;
    absl::StrAppendFormat(&out, "\\x{%x}-\\x{%x}", static_cast<uint32_t>(range.first),
                          static_cast<uint32_t>(range.last));
  }
  return out;
}

// Class members for a general category; empty if `name` is not one that Unicode fixes (C holds what is not assigned
// yet).
std::string CategoryMembers(std::string_view name) {
  constexpr std::string_view kKnown =
      " L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp ";
  if (name.empty() || name.size() > 2 || kKnown.find(absl::StrCat(" ", std::string(name), " ")) == kKnown.npos)
    return "";
  return absl::StrCat("\\p{", std::string(name), "}", NewMembers(name));
}

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where) : rest_(pattern), where_(where) {}

  absl::StatusOr<std::string> Run() {
    if (Take("(?i)")) out_ += "(?i)";  // only here does it mean the same in both syntaxes
    while (!rest_.empty()) {
      if (absl::Status status = One(); !status.ok()) return status;
    }
    return std::move(out_);
  }

 private:
  absl::Status Refuse(std::string_view construct) const {
    return absl::UnimplementedError(
        absl::StrCat(where_, ": the regular expression uses ", QuotedName(construct), ", which is not supported"));
  }
  bool Take(std::string_view token) {
    if (!rest_.starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }
  char Next() {
    const char c = rest_.front();
    rest_.remove_prefix(1);
    return c;
  }

  absl::Status One() {
    switch (rest_.front()) {
      case '(':
        return OpenGroup();
      case '[':
        return Class();
      case '\\':
        return Escape(/*in_class=*/false);
      case '*':
      case '+':
      case '?':
      case '{':
        return Quantifier();
      case '^':
        Next();
        out_ += "(?m:^)";  // lines, always
        return absl::OkStatus();
      case '$':
        Next();
        out_ += "(?m:$)";
        return absl::OkStatus();
      default:
        out_ += Next();
        return absl::OkStatus();
    }
  }

  absl::Status OpenGroup() {
    for (const std::string_view open : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"}) {
      if (Take(open)) {
        out_ += open;
        return absl::OkStatus();
      }
    }
    if (rest_.starts_with("(?") || rest_.starts_with("(*")) return Refuse(rest_.substr(0, 3));
    out_ += Next();
    return absl::OkStatus();
  }

  absl::Status Quantifier() {
    const char first = rest_.front();
    if (first != '{') {
      out_ += Next();
      if (!rest_.empty() && (rest_.front() == '?' || rest_.front() == '+')) out_ += Next();  // lazy, possessive
    } else {
      size_t end = 1;
      while (end < rest_.size() && (IsDigit(rest_[end]) || rest_[end] == ',')) ++end;
      const std::string_view range = rest_.substr(1, end - 1);
      const bool is_range = end < rest_.size() && rest_[end] == '}' && !range.empty() && IsDigit(range.front()) &&
                            range.find(',') == range.rfind(',');
      if (!is_range) return Refuse(rest_.substr(0, end + 1));
      out_ += rest_.substr(0, end + 1);
      rest_.remove_prefix(end + 1);
      if (range.find(',') != range.npos && Take("?")) out_ += '?';
    }
    // A quantifier on a quantifier, which is how Oniguruma reads "{2}?" and "{2,}+".
    if (!rest_.empty() && std::string_view("*+?{").find(rest_.front()) != std::string_view::npos) {
      return Refuse(rest_.substr(0, 1));
    }
    return absl::OkStatus();
  }

  absl::Status Class() {
    out_ += Next();
    if (Take("^")) out_ += '^';
    bool is_empty = true;
    while (!rest_.empty() && rest_.front() != ']') {
      if (rest_.front() == '[' || rest_.starts_with("&&")) return Refuse(rest_.substr(0, 2));  // a class in a class
      if (rest_.front() == '\\') {
        if (absl::Status status = Escape(/*in_class=*/true); !status.ok()) return status;
      } else {
        out_ += Next();
      }
      is_empty = false;
    }
    if (rest_.empty() || is_empty) return Refuse("[");
    out_ += Next();
    return absl::OkStatus();
  }

  // `members` inside a class, a class of them outside.
  void AddMembers(std::string_view members, bool in_class) {
    absl::StrAppend(&out_, in_class ? "" : "[", std::string(members), in_class ? "" : "]");
  }

  absl::Status Escape(bool in_class) {
    if (rest_.size() < 2) return Refuse("\\");
    const std::string_view all = rest_;
    Next();
    const char c = Next();
    switch (c) {
      case 'r':
      case 'n':
      case 't':
      case 'f':
        out_ += {'\\', c};
        return absl::OkStatus();
      case 'v':
        out_ += "\\x0b";  // in PCRE2 "\v" is a class of seven
        return absl::OkStatus();
      case 's':
        out_ += "\\p{White_Space}";
        return absl::OkStatus();
      case 'S':
        out_ += "\\P{White_Space}";
        return absl::OkStatus();
      case 'd':
        AddMembers(CategoryMembers("Nd"), in_class);
        return absl::OkStatus();
      case 'w':
        AddMembers(WordMembers(), in_class);
        return absl::OkStatus();
      case 'D':
      case 'W':
        if (in_class) return Refuse(all.substr(0, 2));
        absl::StrAppend(&out_, "[^", c == 'D' ? CategoryMembers("Nd") : WordMembers(), "]");
        return absl::OkStatus();
      case 'p':
      case 'P':
        return Property(c == 'P', in_class, all);
      case 'x':
      case 'u':
        return CodePoint(c, all);
      case 'A':
      case 'z':
        if (in_class) return Refuse(all.substr(0, 2));
        out_ += {'\\', c};
        return absl::OkStatus();
      default:
        if (kPunctuation.find(c) == kPunctuation.npos) return Refuse(all.substr(0, 2));
        out_ += {'\\', c};
        return absl::OkStatus();
    }
  }

  static std::string WordMembers() {
    return absl::StrCat("\\p{Alphabetic}", NewMembers("L"), CategoryMembers("M"), CategoryMembers("Nd"), "\\p{Pc}");
  }

  absl::Status Property(bool negated, bool in_class, std::string_view all) {
    const size_t end = rest_.find('}');
    if (!rest_.starts_with("{") || end == rest_.npos) return Refuse(all.substr(0, 2));
    std::string_view name = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 1);
    const std::string_view whole = all.substr(0, end + 3);
    if (name.starts_with("^")) {
      negated = !negated;
      name.remove_prefix(1);
    }
    const std::string members = CategoryMembers(name);
    if (members.empty() || (negated && in_class)) return Refuse(whole);
    if (negated) {
      absl::StrAppend(&out_, "[^", members, "]");
    } else {
      AddMembers(members, in_class);
    }
    return absl::OkStatus();
  }

  // \xHH below 0x80, \x{H…}, \uHHHH.
  absl::Status CodePoint(char kind, std::string_view all) {
    std::string_view digits;
    if (kind == 'x' && rest_.starts_with("{")) {
      const size_t end = rest_.find('}');
      if (end == rest_.npos) return Refuse("\\x{");
      digits = rest_.substr(1, end - 1);
      rest_.remove_prefix(end + 1);
    } else {
      digits = rest_.substr(0, kind == 'x' ? 2 : 4);
      if (digits.size() != (kind == 'x' ? 2u : 4u)) return Refuse(all.substr(0, 2));
      rest_.remove_prefix(digits.size());
    }
    if (digits.empty() || digits.size() > 6) return Refuse(all.substr(0, 2));
    uint32_t code = 0;
    for (const char digit : digits) {
      if (!IsHexDigit(digit)) return Refuse(all.substr(0, 2));
      code = code * 16 + static_cast<uint32_t>(IsDigit(digit) ? digit - '0' : (digit | 0x20) - 'a' + 10);
    }
    const bool is_scalar = code < 0x110000 && (code < 0xD800 || code >= 0xE000);
    const bool is_raw_byte = kind == 'x' && digits.size() == 2 && all[2] != '{' && code >= 0x80;
    if (!is_scalar || is_raw_byte) return Refuse(all.substr(0, 4));
    absl::StrAppendFormat(&out_, "\\x{%x}", code);
    return absl::OkStatus();
  }

  std::string_view rest_;
  const std::string& where_;
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> TranslateRegex(std::string_view pattern, const std::string& where) {
  if (WellFormedPrefix(pattern) != pattern.size()) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": the regular expression is not UTF-8"));
  }
  return Translator(pattern, where).Run();
}

std::string QuoteRegex(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (kPunctuation.find(c) != kPunctuation.npos) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace statehouse
