#include "kernels/parallel/thread_name.h"

#include <pthread.h>

namespace statehouse::kernels {

void NameThisThread(const char* name) {
#if defined(__linux__)
  pthread_setname_np(pthread_self(), name);
#else
  static_cast<void>(name);
#endif
}

}  // namespace statehouse::kernels
