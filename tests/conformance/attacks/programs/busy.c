/* Processes and threads that make calls which only a supervisor answers, and look at every answer: an ENOSYS, a clock of the host's or random bytes
 * that nobody drew from the seed would mean that a call fell through. What it sees it notes in a mapped file, by a store: that needs no call. */
#include "say.h"
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>

/* The cage's year: its clock begins in 2027 and no run of this program gets far. */
enum { EPOCH = 1798761600, SPAN = 86400 * 30 };

static char *notes;

static void fell(const char *what, long value) {
  snprintf(notes, 100, "fell through: %s %ld\n", what, value);
  for (;;) pause();
}

static void *calls(void *unused) {
  (void)unused;
  for (;;) {
    struct timespec t = {0};
    if (syscall(SYS_clock_gettime, CLOCK_REALTIME, &t)) fell("clock_gettime", errno);
    if (t.tv_sec < EPOCH || t.tv_sec > EPOCH + SPAN) fell("the time", t.tv_sec);
    struct utsname name;
    if (uname(&name)) fell("uname", errno);
    if (!strstr(name.release, "docklock")) fell("a release", 0);
    struct stat s;
    if (stat("/work/busy", &s)) fell("stat", errno);
    char byte;
    if (syscall(SYS_getrandom, &byte, 1, 0) != 1) fell("getrandom", errno);
    if (syscall(SYS_sched_yield)) fell("sched_yield", errno);
    struct timespec nap = {0, 1000};
    if (nanosleep(&nap, 0)) fell("nanosleep", errno);
    int fd = open("/proc/uptime", O_RDONLY);
    if (fd < 0) fell("open", errno);
    close(fd);
  }
  return 0;
}

int main(void) {
  int file = NEED(open("/tmp/notes", O_CREAT | O_RDWR, 0600));
  NEED(ftruncate(file, 4096));
  notes = NEED(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
  strcpy(notes, "nothing\n");
  dprintf(1, "busy\n");
  for (int i = 0; i < 3; i++)
    if (!NEED(fork())) {
      pthread_t thread;
      for (int j = 0; j < 3; j++) pthread_create(&thread, 0, calls, 0);
      calls(0);
    }
  for (;;) {
    pid_t child = NEED(fork());
    if (!child) _exit(0);
    if (waitpid(child, 0, 0) != child) fell("waitpid", errno);
  }
}
