// Text on its way to the wire. Thread-safety: functions without state.
#pragma once

#include <google/protobuf/message.h>

#include "absl/status/status.h"

namespace statehouse::cli {

// INVALID_ARGUMENT names the first field whose text is not UTF-8, as in "stop.strings[0]", and the byte where it ends
// being so. protobuf would refuse to send it without a word of which.
absl::Status CheckText(const google::protobuf::Message& request);

}  // namespace statehouse::cli
