// What this machine can do at best, for Admin.GetStatus: a client that measures a server compares with it.
// Thread-safety: one call at a time, with nothing else on the pool.
#pragma once

#include "kernels/parallel/thread_pool.h"
#include "statehouse/v1/admin.pb.h"

namespace statehouse {

// Takes about a tenth of a second and up to 64 MiB, which are given back. Sizes whose memory cannot be had are left
// out.
v1::Machine MeasureMachine(kernels::ThreadPool& pool);

}  // namespace statehouse
