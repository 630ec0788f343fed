// Counts this thread's calls of malloc, free and their kin: a program that links this has them replaced (operator new
// and delete end there too). Under AddressSanitizer and ThreadSanitizer, which replace them themselves, nothing is
// counted.
#pragma once

#include <cstdint>

namespace statehouse::testing {

// Are calls counted in this build?
bool CountsAllocations();

// Calls made by this thread while such an object lives.
class AllocationScope {
 public:
  AllocationScope();
  ~AllocationScope();
  AllocationScope(const AllocationScope&) = delete;
  AllocationScope& operator=(const AllocationScope&) = delete;

  int64_t allocations() const;
  int64_t frees() const;
};

// Ends the program at the first counted call, so that a debugger shows who made it.
void TrapOnAllocation(bool trap);

}  // namespace statehouse::testing
