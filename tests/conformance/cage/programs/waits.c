/* Children that end on their own: which one is seen first. */
#include "check.h"
#include <signal.h>
#include <sys/wait.h>

int main(void) {
  pid_t children[12];
  for (int i = 0; i < 12; i++) {
    children[i] = CHECK(fork());
    if (children[i] == 0) {
      volatile unsigned long work = 0;
      for (unsigned long n = 0; n < (unsigned long)(i * 7 % 5) * 400000; n++) work += n;
      if (i % 4 == 3) raise(SIGKILL);
      if (i % 4 == 2) usleep(1000);
      _exit(i);
    }
  }
  int status;
  for (int i = 0; i < 6; i++) {
    pid_t child = CHECK(wait(&status));
    printf("%d status %x\n", child, status);
  }
  siginfo_t info;
  while (waitid(P_ALL, 0, &info, WEXITED) == 0) printf("%d code %d status %d\n", info.si_pid, info.si_code, info.si_status);
  return 0;
}
