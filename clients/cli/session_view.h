// How a session is shown: as rows of a table, as a page, as JSON; and its transcript as messages.
//
// Thread-safety: functions without state.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "statehouse/v1/sessions.pb.h"

namespace statehouse::cli {

// "sync"; "" if unspecified.
std::string DurabilityName(v1::Durability durability);
// "device", "host", "disk", "store"; "" if unspecified.
std::string TierName(v1::CacheTier tier);
// "exact", "continued"; "" if unspecified.
std::string ExactnessName(v1::Exactness exactness);
// "12 s ago", "3 h ago", "5 d ago"; `then` and `now` in seconds of Unix time. 0: "never".
std::string Ago(double then, double now);

nlohmann::ordered_json SessionJson(const v1::Session& session);
// "3 snapshots on disk, 1.2 MB": a line of each tier.
std::string RemovedText(const google::protobuf::RepeatedPtrField<v1::TierCount>& removed);
nlohmann::ordered_json RemovedJson(const google::protobuf::RepeatedPtrField<v1::TierCount>& removed);
// A line per session: name or id, tokens, turns, checkpoints, bytes, durability, last turn, marks.
std::string SessionTable(const std::vector<v1::Session>& sessions, double now);
// All that is known of one.
std::string SessionText(const v1::Session& session, double now);

struct TranscriptMessage {
  std::string role;  // "system", "user", "assistant"; empty: text outside messages
  std::string text;
};
// The messages in a transcript whose special tokens are shown by name, for that chat template ("demo", "chatml",
// "plain"; of any other everything is one text).
std::vector<TranscriptMessage> SplitTranscript(std::string_view text, std::string_view chat_template);

}  // namespace statehouse::cli
