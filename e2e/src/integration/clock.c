/* Loaded before a program's libraries: what it asks for the time of day is so many seconds off as the file says that
   CLOCK_DISTANCE names (eight bytes, which may change at any time). Timers keep running by the real clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const volatile long *distance;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
  const char *file = getenv("CLOCK_DISTANCE");
  real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  if (!file) return;
  int descriptor = open(file, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) abort();
  void *place = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, descriptor, 0);
  if (place == MAP_FAILED) abort();
  close(descriptor);
  distance = place;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  if (!real) begin();
  int result = real(clock, at);
  if (result == 0 && distance && clock == CLOCK_REALTIME) at->tv_sec += *distance;
  return result;
}
