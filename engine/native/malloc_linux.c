#include <malloc.h>
#include <unistd.h>

#ifdef __GLIBC__
// A server meets requests of very different sizes on many threads. By default
// glibc answers that with eight arenas a core, and with a limit for blocks of
// their own that rises with each large block: what large requests once took then
// lies in holes of all arenas and does not go back. So as many arenas as can be
// in use at once have to do, and large blocks always come from the system and go
// back to it. Before the process has a second thread, and before the constructor
// of the trial process, which has other needs.
__attribute__((constructor(200))) static void set_up_malloc(void) {
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  mallopt(M_ARENA_MAX, cores < 2 ? 2 : (int)cores);
  mallopt(M_MMAP_THRESHOLD, 256 << 10);
  mallopt(M_TRIM_THRESHOLD, 1 << 20);
}
#endif
