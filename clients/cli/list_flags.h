// Flags that hold several values: given several times, or (ids) separated by commas. Thread-safety: as CLI11's.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace statehouse::cli {

// `set` is called with all values when the flag was given. In the environment a flag of texts can hold one.
void AddTexts(CLI::App& command, const char* group, const char* name, const char* help, const char* type,
              const std::function<void(const std::vector<std::string>&)>& set);
void AddIds(CLI::App& command, const char* group, const char* name, const char* help,
            const std::function<void(const std::vector<int32_t>&)>& set);

}  // namespace statehouse::cli
