// The flags that fill a GenerateRequest: one definition for `chat`, `generate` (over the wire or not) and the load
// benchmark.
#pragma once

#include "statehouse/v1/generation.pb.h"

namespace CLI {
class App;
}

namespace statehouse::cli {

// Each flag sets its field of `request` when it is given, by command line, environment or config file, and leaves it
// absent otherwise. `request` must outlive `command`'s parse.
void AddSamplingFlags(CLI::App& command, v1::GenerateRequest* request);  // how tokens are chosen, and when to stop
void AddCacheFlags(CLI::App& command, v1::GenerateRequest* request);     // shared prefixes
void AddOutputFlags(CLI::App& command, v1::GenerateRequest* request);  // n, log probabilities, fill in the middle, …

}  // namespace statehouse::cli
