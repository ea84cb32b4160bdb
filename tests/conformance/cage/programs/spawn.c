/* Many processes by fork, vfork and posix_spawn, some replaced by another program, some by a thread's exec. */
#include "check.h"
#include <pthread.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;
static char *self;
static void *execs(void *nothing) {
  char *argv[] = {self, "from-thread", NULL};
  execv(self, argv);
  return nothing;
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 4096);
  self = argv[0];
  if (argc > 1) {
    printf("%s pid %d ppid %d\n", argv[1], getpid(), getppid());
    return 5;
  }
  pid_t child;
  for (int i = 0; i < 10; i++) {
    char name[16];
    snprintf(name, sizeof name, "spawn%d", i);
    char *arguments[] = {self, name, NULL};
    if (posix_spawn(&child, self, NULL, NULL, arguments, environ) != 0) return 1;
  }
  if ((child = vfork()) == 0) {
    execl(self, self, "vforked", NULL);
    _exit(1);
  }
  if (CHECK(fork()) == 0) {
    pthread_t thread;
    pthread_create(&thread, NULL, execs, NULL);
    pthread_join(thread, NULL);
    _exit(1);
  }
  int status;
  while ((child = wait(&status)) > 0) printf("ended %d %x\n", child, status);
  return 0;
}
