#include "engine/random_id.h"

#include <random>

#include "absl/strings/str_cat.h"

namespace statehouse {

std::string RandomHex(size_t digits) {
  std::random_device device;
  std::string text;
  while (text.size() < digits) absl::StrAppend(&text, absl::Hex(device(), absl::kZeroPad8));
  return text;
}

bool IsHex(std::string_view text, size_t digits) {
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace statehouse
