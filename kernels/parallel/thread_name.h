// The name that the calling thread shows in top, perf and /proc: "engine", "compute", "events". Thread-safety: any.
#pragma once

namespace statehouse::kernels {

// At most 15 characters; without an effect where the system has no thread names.
void NameThisThread(const char* name);

}  // namespace statehouse::kernels
