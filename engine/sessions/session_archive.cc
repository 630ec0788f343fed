#include "engine/sessions/session_archive.h"

#include "absl/strings/str_cat.h"
#include "engine/random_id.h"

namespace statehouse {
namespace {

constexpr size_t kIdDigits = 32;
constexpr int64_t kPage = 1000;

}  // namespace

bool IsSessionId(std::string_view text) { return IsHex(text, kIdDigits); }

std::string NewSessionId() { return RandomHex(kIdDigits); }

absl::Status NoSuchSession(std::string_view ref) {
  return absl::NotFoundError(absl::StrCat("no session \"", std::string(ref), "\""));
}

absl::Status ForEachEntry(SessionArchive* archive, const std::string* principal_filter,
                          const std::function<absl::StatusOr<bool>(const SessionEntry&)>& visit) {
  std::string after;
  while (true) {
    const auto page = archive->ListEntries(principal_filter, after, kPage);
    if (!page.ok()) return page.status();
    if (page->empty()) return absl::OkStatus();
    for (const SessionEntry& entry : *page) {
      const auto goes_on = visit(entry);
      if (!goes_on.ok()) return goes_on.status();
      if (!*goes_on) return absl::OkStatus();
    }
    after = page->back().id;
  }
}

}  // namespace statehouse
