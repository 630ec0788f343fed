#include "clients/cli/random_name.h"

#include <random>

#include "absl/strings/str_format.h"

namespace statehouse::cli {

std::string RandomName() {
  std::random_device device;
  std::string name;
  for (int i = 0; i < 4; ++i) name += absl::StrFormat("%08x", device());
  return name;
}

}  // namespace statehouse::cli
