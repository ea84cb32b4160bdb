/* Identities of processes and threads, in the order they are made. */
#include "check.h"
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void *thread(void *number) {
  printf("thread %ld tid %ld\n", (long)number, (long)syscall(SYS_gettid));
  return NULL;
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 4096);
  printf("pid %d ppid %d pgid %d sid %d uid %d gid %d\n", getpid(), getppid(), getpgrp(), getsid(0), getuid(), getgid());
  for (int i = 0; i < 5; i++) {
    pid_t child = CHECK(fork());
    if (child == 0) {
      printf("child %d pid %d ppid %d\n", i, getpid(), getppid());
      _exit(i);
    }
    int status;
    CHECK(waitpid(child, &status, 0));
    printf("waited %d status %x\n", child, status);
  }
  pthread_t threads[4];
  for (long i = 0; i < 4; i++) pthread_create(&threads[i], NULL, thread, (void *)i);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < 4; i++)
    if (CHECK(fork()) == 0) {
      printf("one of four at once, pid %d\n", getpid());
      _exit(0);
    }
  while (wait(NULL) > 0) {
  }
  return 0;
}
