#include "server/commands/command_error.h"

#include <cstdio>
#include <string>

namespace statehouse {

int FailCommand(const absl::Status& status) {
  std::fprintf(stderr, "statehouse: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace statehouse
