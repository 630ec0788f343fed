// The least that a load could have taken on the server's machine, from what the server says of its model (StepCost) and
// its machine (Machine): docs/performance.md, "What bounds each phase". Thread-safety: pure function.
#pragma once

#include <optional>

#include "clients/cli/load_metrics.h"
#include "statehouse/v1/admin.pb.h"
#include "statehouse/v1/models.pb.h"

namespace statehouse::cli {

// Nothing where the server names neither, as an older one does, or nothing was measured.
std::optional<LoadFloors> FloorsOf(const v1::Model& model, const v1::Machine& machine, const LoadReport& report);

}  // namespace statehouse::cli
