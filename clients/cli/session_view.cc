#include "clients/cli/session_view.h"

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "clients/cli/table.h"
#include "clients/cli/terminal.h"

namespace statehouse::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string Bytes(int64_t bytes) { return FormatBytes(static_cast<double>(bytes)); }

// "damaged, pinned, shared, busy": what sets it apart.
std::string Marks(const v1::Session& session) {
  std::vector<std::string> marks;
  if (!session.damage().empty()) marks.push_back("damaged");
  if (session.pinned()) marks.push_back("pinned");
  if (session.shared()) marks.push_back("shared");
  if (session.busy()) marks.push_back("busy");
  return absl::StrJoin(marks, ", ");
}

void AddRow(std::string* text, const char* name, const std::string& value) {
  absl::StrAppend(text, absl::StrFormat("%-12s %s\n", name, value));
}

// How a template opens and ends messages, as its special tokens show.
struct Markers {
  std::string_view name;
  std::array<std::pair<std::string_view, std::string_view>, 3> openings;  // text, role
  std::string_view end;  // of a message; empty: the next opening ends it
};

constexpr Markers kTemplates[] = {
    {"demo", {{{"<|system|>", "system"}, {"<|user|>", "user"}, {"<|assistant|>", "assistant"}}}, "<|end|>"},
    {"chatml",
     {{{"<|im_start|>system\n", "system"}, {"<|im_start|>user\n", "user"}, {"<|im_start|>assistant\n", "assistant"}}},
     "<|im_end|>"},
    {"plain", {{{"\nUser:", "user"}, {"\nAssistant:", "assistant"}, {"\nSystem:", "system"}}}, ""},
};

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\n')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\n')) text.remove_suffix(1);
  return text;
}

}  // namespace

std::string DurabilityName(v1::Durability durability) {
  switch (durability) {
    case v1::DURABILITY_MEMORY:
      return "memory";
    case v1::DURABILITY_ASYNC:
      return "async";
    case v1::DURABILITY_SYNC:
      return "sync";
    default:
      return "";
  }
}

std::string TierName(v1::CacheTier tier) {
  switch (tier) {
    case v1::CACHE_TIER_DEVICE:
      return "device";
    case v1::CACHE_TIER_HOST:
      return "host";
    case v1::CACHE_TIER_DISK:
      return "disk";
    case v1::CACHE_TIER_STORE:
      return "store";
    default:
      return "";
  }
}

std::string ExactnessName(v1::Exactness exactness) {
  switch (exactness) {
    case v1::EXACTNESS_EXACT:
      return "exact";
    case v1::EXACTNESS_CONTINUED:
      return "continued";
    default:
      return "";
  }
}

std::string Ago(double then, double now) {
  if (then <= 0) return "never";
  const auto seconds = static_cast<int64_t>(std::max(0.0, now - then));
  constexpr int64_t kMinute = 60, kHour = 60 * kMinute, kDay = 24 * kHour;
  if (seconds < kMinute) return absl::StrCat(seconds, " s ago");
  if (seconds < kHour) return absl::StrCat(seconds / kMinute, " min ago");
  if (seconds < kDay) return absl::StrCat(seconds / kHour, " h ago");
  return absl::StrCat(seconds / kDay, " d ago");
}

Json SessionJson(const v1::Session& session) {
  Json labels = Json::object();
  const std::map<std::string, std::string> sorted(session.labels().begin(), session.labels().end());
  for (const auto& [key, value] : sorted) labels[key] = value;
  Json checkpoints = Json::array();
  for (const v1::SessionCheckpoint& checkpoint : session.checkpoints()) {
    checkpoints.push_back(
        {{"position", checkpoint.position()}, {"bytes", checkpoint.bytes()}, {"tier", TierName(checkpoint.tier())}});
  }
  return {{"id", session.id()},
          {"name", session.name()},
          {"labels", std::move(labels)},
          {"durability", DurabilityName(session.durability())},
          {"ttl_seconds", session.ttl_seconds()},
          {"pinned", session.pinned()},
          {"shared", session.shared()},
          {"position", session.position()},
          {"turns", session.turns()},
          {"snapshot_bytes", session.snapshot_bytes()},
          {"checkpoints", std::move(checkpoints)},
          {"created", session.created()},
          {"last_turn", session.last_turn()},
          {"busy", session.busy()},
          {"lease_owner", session.lease_owner().empty() ? Json(nullptr) : Json(session.lease_owner())},
          {"lease_seconds", session.lease_seconds()},
          {"damage", session.damage().empty() ? Json(nullptr) : Json(session.damage())}};
}

std::string RemovedText(const google::protobuf::RepeatedPtrField<v1::TierCount>& removed) {
  std::string text;
  for (const v1::TierCount& count : removed) {
    if (count.snapshots() == 0 && count.bytes() == 0) continue;
    absl::StrAppend(&text,
                    absl::StrFormat("%d snapshot%s in %s, %s\n", count.snapshots(), count.snapshots() == 1 ? "" : "s",
                                    count.tier() == v1::CACHE_TIER_UNSPECIFIED ? "journal" : TierName(count.tier()),
                                    Bytes(count.bytes())));
  }
  return text;
}

Json RemovedJson(const google::protobuf::RepeatedPtrField<v1::TierCount>& removed) {
  Json list = Json::array();
  for (const v1::TierCount& count : removed) {
    list.push_back({{"tier", TierName(count.tier())}, {"snapshots", count.snapshots()}, {"bytes", count.bytes()}});
  }
  return list;
}

std::string SessionTable(const std::vector<v1::Session>& sessions, double now) {
  Table table({{"SESSION"},
               {"TOKENS", Align::kRight},
               {"TURNS", Align::kRight},
               {"SNAPSHOTS", Align::kRight},
               {"DURABILITY"},
               {"LAST TURN"},
               {"MARKS"}});
  for (const v1::Session& session : sessions) {
    table.Add({session.name().empty() ? session.id() : session.name(), absl::StrCat(session.position()),
               absl::StrCat(session.turns()), Bytes(session.snapshot_bytes()),
               DurabilityName(session.durability()), session.turns() == 0 ? "none" : Ago(session.last_turn(), now),
               Marks(session)});
  }
  return table.Text();
}

std::string SessionText(const v1::Session& session, double now) {
  std::string text;
  AddRow(&text, "id", session.id());
  AddRow(&text, "name", session.name().empty() ? "none" : session.name());
  if (!session.damage().empty()) {
    AddRow(&text, "damaged", absl::StrCat(session.damage(), "; it can only be deleted. What follows was last known"));
  }
  AddRow(&text, "holds", absl::StrFormat("%d tokens in %d turns", session.position(), session.turns()));
  AddRow(&text, "durability", DurabilityName(session.durability()));
  AddRow(&text, "created", Ago(session.created(), now));
  AddRow(&text, "last turn", session.turns() == 0 ? "none" : Ago(session.last_turn(), now));
  AddRow(&text, "kept",
         session.pinned()            ? "for ever: pinned"
         : session.ttl_seconds() > 0 ? absl::StrCat(FormatSeconds(session.ttl_seconds()), " after the last turn")
                                     : "until it is deleted");
  if (session.shared()) AddRow(&text, "shared", "other principals may read and fork it");
  if (session.busy()) AddRow(&text, "busy", "a turn is under way");
  if (!session.lease_owner().empty()) {
    AddRow(&text, "lease",
           absl::StrFormat("%s, for another %s", session.lease_owner(), FormatSeconds(session.lease_seconds())));
  }
  const std::map<std::string, std::string> labels(session.labels().begin(), session.labels().end());
  for (const auto& [key, value] : labels) AddRow(&text, "label", absl::StrCat(key, "=", value));
  if (session.checkpoints().empty()) return text;
  Table table({{"CHECKPOINT", Align::kRight}, {"BYTES", Align::kRight}, {"TIER"}});
  for (const v1::SessionCheckpoint& checkpoint : session.checkpoints()) {
    table.Add({absl::StrCat(checkpoint.position()), Bytes(checkpoint.bytes()), TierName(checkpoint.tier())});
  }
  return absl::StrCat(text, "\n", table.Text());
}

std::vector<TranscriptMessage> SplitTranscript(std::string_view text, std::string_view chat_template) {
  const auto* const markers = std::find_if(std::begin(kTemplates), std::end(kTemplates),
                                           [&](const Markers& m) { return m.name == chat_template; });
  if (markers == std::end(kTemplates)) return {{"", std::string(text)}};
  const std::string all = absl::StrCat("\n", std::string(text));  // the first opening may stand at the very beginning
  const std::string_view rest = all;
  std::vector<TranscriptMessage> messages = {{"", ""}};  // what stands before the first opening
  for (size_t at = 0;;) {
    size_t next = std::string_view::npos, length = 0;
    std::string_view role;
    for (const auto& [opening, name] : markers->openings) {
      const size_t found = rest.find(opening, at);
      if (found < next) std::tie(next, length, role) = std::tuple(found, opening.size(), name);
    }
    std::string_view content = rest.substr(at, next == std::string_view::npos ? next : next - at);
    if (!markers->end.empty()) content = content.substr(0, content.find(markers->end));
    messages.back().text = std::string(Trimmed(content));
    if (next == std::string_view::npos) break;
    messages.push_back({std::string(role), ""});
    at = next + length;
  }
  if (messages.front().text.empty() || messages.front().text == "<s>") messages.erase(messages.begin());
  return messages;
}

}  // namespace statehouse::cli
