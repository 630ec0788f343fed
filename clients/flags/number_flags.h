// Flags and arguments that hold numbers. Help shows their bounds; a value that is not allowed is refused with the flag,
// the value and what is allowed. Thread-safety: as CLI11's; what `value` points to must outlive parsing.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "clients/flags/numbers.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace statehouse {

// One number, for T int32_t, int64_t, uint64_t or double. `set` is called if the flag was given. The value's name in
// help is "INT" or "NUMBER" unless the caller sets another with type_name().
template <typename T>
CLI::Option* AddNumber(CLI::App& command, const std::string& names, std::function<void(T)> set, const std::string& help,
                       const Bounds<T>& bounds = {});
// Help shows what `*value` is now as the default.
template <typename T>
CLI::Option* AddNumber(CLI::App& command, const std::string& names, T* value, const std::string& help,
                       const Bounds<T>& bounds = {});

// At least one number, separated by commas or given in several flags.
template <typename T>
CLI::Option* AddNumbers(CLI::App& command, const std::string& names, std::function<void(const std::vector<T>&)> set,
                        const std::string& help, const Bounds<T>& bounds = {});
template <typename T>
CLI::Option* AddNumbers(CLI::App& command, const std::string& names, std::vector<T>* values, const std::string& help,
                        const Bounds<T>& bounds = {});

}  // namespace statehouse
