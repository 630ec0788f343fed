// Counts every operator new of the program that links it.
#pragma once

#include <cstdint>

namespace statehouse::testing {

int64_t AllocationCount();

}  // namespace statehouse::testing
