#include "clients/cli/list_flags.h"

#include <CLI/CLI.hpp>

#include "clients/flags/number_flags.h"

namespace statehouse::cli {

void AddTexts(CLI::App& command, const char* group, const char* name, const char* help, const char* type,
              const std::function<void(const std::vector<std::string>&)>& set) {
  command.add_option_function<std::vector<std::string>>(name, set, help)
      ->group(group)
      ->expected(1)
      ->allow_extra_args(false)  // or the flag would swallow the words behind it
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->type_name(type);
}

void AddIds(CLI::App& command, const char* group, const char* name, const char* help,
            const std::function<void(const std::vector<int32_t>&)>& set) {
  AddNumbers<int32_t>(command, name, set, help, {.least = 0})->group(group)->type_name("ID,ID,…");
}

}  // namespace statehouse::cli
