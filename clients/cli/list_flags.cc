#include "clients/cli/list_flags.h"

#include <CLI/CLI.hpp>
#include <utility>

namespace statehouse::cli {
namespace {

template <typename T>
CLI::Option* AddList(CLI::App& command, const char* group, const char* name, const char* help,
                     std::function<void(const std::vector<T>&)> set) {
  return command.add_option_function<std::vector<T>>(name, std::move(set), help)
      ->group(group)
      ->expected(1)
      ->allow_extra_args(false)  // or the flag would swallow the words behind it
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

}  // namespace

void AddTexts(CLI::App& command, const char* group, const char* name, const char* help, const char* type,
              std::function<void(const std::vector<std::string>&)> set) {
  AddList<std::string>(command, group, name, help, std::move(set))->type_name(type);
}

void AddIds(CLI::App& command, const char* group, const char* name, const char* help,
            std::function<void(const std::vector<int32_t>&)> set) {
  AddList<int32_t>(command, group, name, help, std::move(set))->delimiter(',')->type_name("ID,ID,…");
}

}  // namespace statehouse::cli
