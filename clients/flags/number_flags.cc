#include "clients/flags/number_flags.h"

#include <CLI/CLI.hpp>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace statehouse {
namespace {

template <typename T>
absl::StatusOr<std::vector<T>> ParseNumbers(const std::string& text, const Bounds<T>& bounds) {
  std::vector<T> numbers;
  for (const std::string& word : std::vector<std::string>(absl::StrSplit(text, ','))) {
    const absl::StatusOr<T> number = ParseNumber<T>(word, bounds);
    if (!number.ok()) {
      const std::string where = word == text ? "" : absl::StrCat(" (in \"", text, "\")");
      return absl::InvalidArgumentError(absl::StrCat(std::string(number.status().message()), where));
    }
    numbers.push_back(*number);
  }
  return numbers;
}

// CLI11 writes the flag's name before what a check says, and `bounds` behind the type in the help text.
template <typename Parse>
CLI::Validator CheckedBy(Parse parse, const std::string& bounds) {
  return CLI::Validator([parse](std::string& text) { return std::string(parse(text).status().message()); }, bounds);
}

}  // namespace

template <typename T>
CLI::Option* AddNumber(CLI::App& command, const std::string& names, std::function<void(T)> set, const std::string& help,
                       const Bounds<T>& bounds) {
  const auto parse = [bounds](const std::string& text) { return ParseNumber<T>(text, bounds); };
  return command
      .add_option_function<std::string>(
          names,
          [parse, set = std::move(set)](const std::string& text) {
            if (const absl::StatusOr<T> number = parse(text); number.ok()) set(*number);
          },
          help)
      ->check(CheckedBy(parse, BoundsText(bounds)))
      ->type_name(std::is_integral_v<T> ? "INT" : "NUMBER");
}

template <typename T>
CLI::Option* AddNumber(CLI::App& command, const std::string& names, T* value, const std::string& help,
                       const Bounds<T>& bounds) {
  return AddNumber<T>(
             command, names, [value](T number) { *value = number; }, help, bounds)
      ->default_str(absl::StrCat(*value));
}

template <typename T>
CLI::Option* AddNumbers(CLI::App& command, const std::string& names, std::function<void(const std::vector<T>&)> set,
                        const std::string& help, const Bounds<T>& bounds) {
  const auto parse = [bounds](const std::string& text) { return ParseNumbers<T>(text, bounds); };
  return command
      .add_option_function<std::vector<std::string>>(
          names,
          [parse, set = std::move(set)](const std::vector<std::string>& texts) {
            std::vector<T> all;
            for (const std::string& text : texts) {
              if (const auto numbers = parse(text); numbers.ok())
                all.insert(all.end(), numbers->begin(), numbers->end());
            }
            set(all);
          },
          help)
      ->check(CheckedBy(parse, BoundsText(bounds)))
      ->expected(1)
      ->allow_extra_args(false)  // or the flag would swallow the words behind it
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->type_name("N,N,…");
}

template <typename T>
CLI::Option* AddNumbers(CLI::App& command, const std::string& names, std::vector<T>* values, const std::string& help,
                        const Bounds<T>& bounds) {
  return AddNumbers<T>(
             command, names, [values](const std::vector<T>& numbers) { *values = numbers; }, help, bounds)
      ->default_str(absl::StrJoin(*values, ","));
}

template CLI::Option* AddNumber(CLI::App&, const std::string&, std::function<void(int32_t)>, const std::string&,
                                const Bounds<int32_t>&);
template CLI::Option* AddNumber(CLI::App&, const std::string&, std::function<void(int64_t)>, const std::string&,
                                const Bounds<int64_t>&);
template CLI::Option* AddNumber(CLI::App&, const std::string&, std::function<void(uint64_t)>, const std::string&,
                                const Bounds<uint64_t>&);
template CLI::Option* AddNumber(CLI::App&, const std::string&, std::function<void(double)>, const std::string&,
                                const Bounds<double>&);
template CLI::Option* AddNumber(CLI::App&, const std::string&, int32_t*, const std::string&, const Bounds<int32_t>&);
template CLI::Option* AddNumber(CLI::App&, const std::string&, int64_t*, const std::string&, const Bounds<int64_t>&);
template CLI::Option* AddNumber(CLI::App&, const std::string&, uint64_t*, const std::string&, const Bounds<uint64_t>&);
template CLI::Option* AddNumber(CLI::App&, const std::string&, double*, const std::string&, const Bounds<double>&);
template CLI::Option* AddNumbers(CLI::App&, const std::string&, std::function<void(const std::vector<int32_t>&)>,
                                 const std::string&, const Bounds<int32_t>&);
template CLI::Option* AddNumbers(CLI::App&, const std::string&, std::vector<int64_t>*, const std::string&,
                                 const Bounds<int64_t>&);

}  // namespace statehouse
