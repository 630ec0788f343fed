#include "tests/support/allocation_counter.h"

#include <cerrno>
#include <cstddef>
#include <cstdlib>

namespace statehouse::testing {
namespace {

thread_local bool counting = false;
thread_local int64_t num_allocations = 0;
thread_local int64_t num_frees = 0;
bool trap_on_allocation = false;

void NoteAllocation() {
  if (!counting) return;
  ++num_allocations;
  if (trap_on_allocation) __builtin_trap();
}

void NoteFree(const void* memory) {
  if (!counting || memory == nullptr) return;
  ++num_frees;
  if (trap_on_allocation) __builtin_trap();
}

}  // namespace

AllocationScope::AllocationScope() {
  num_allocations = num_frees = 0;
  counting = true;
}
AllocationScope::~AllocationScope() { counting = false; }
int64_t AllocationScope::allocations() const { return num_allocations; }
int64_t AllocationScope::frees() const { return num_frees; }
void TrapOnAllocation(bool trap) { trap_on_allocation = trap; }

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
bool CountsAllocations() { return false; }
#else
bool CountsAllocations() { return true; }

extern "C" {

// glibc's own, under the names it exports for this purpose.
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
void __libc_free(void* memory);

void* malloc(size_t size) {
  NoteAllocation();
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  NoteAllocation();
  return __libc_calloc(count, size);
}
void* realloc(void* memory, size_t size) {
  NoteAllocation();
  return __libc_realloc(memory, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  NoteAllocation();
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** memory, size_t alignment, size_t size) {
  NoteAllocation();
  *memory = __libc_memalign(alignment, size);
  return *memory == nullptr ? ENOMEM : 0;
}
void free(void* memory) {
  NoteFree(memory);
  __libc_free(memory);
}

}  // extern "C"
#endif

}  // namespace statehouse::testing
