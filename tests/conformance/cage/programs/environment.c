/* What a program is handed by whoever starts it. */
#include "check.h"
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>

extern char **environ;

int main(int argc, char **argv) {
  char folder[4096];
  for (int i = 0; i < argc; i++) printf("argv %s\n", argv[i]);
  for (char **variable = environ; *variable; variable++) printf("env %s\n", *variable);
  printf("cwd %s\n", CHECK(getcwd(folder, sizeof folder) ? 0 : -1) == 0 ? folder : "");
  mode_t mask = umask(0);
  umask(mask);
  printf("umask %o locale %s\n", mask, setlocale(LC_ALL, ""));
  time_t epoch = 1000000000;
  tzset();
  printf("zone %s %ld %s", tzname[0], timezone, ctime(&epoch));
  for (int fd = 0; fd < 32; fd++)
    if (fcntl(fd, F_GETFD) >= 0) printf("fd %d flags %x\n", fd, fcntl(fd, F_GETFL) & ~O_APPEND & 3);
  sigset_t blocked;
  sigprocmask(SIG_BLOCK, NULL, &blocked);
  for (int number = 1; number < 65; number++) {
    struct sigaction action;
    if (sigismember(&blocked, number) == 1) printf("blocked %d\n", number);
    if (sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN) printf("ignored %d\n", number);
  }
  int made = CHECK(open("/tmp/mode", O_CREAT | O_WRONLY, 0777));
  struct stat s;
  CHECK(fstat(made, &s));
  printf("made with mode %o\n", s.st_mode);
  return 0;
}
