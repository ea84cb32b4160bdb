/* Signals between processes and threads: in which order, at which point of the computation. */
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

static volatile sig_atomic_t hits, child_ends;
static volatile unsigned long work;
static unsigned long seen_at[64];
static void on_hit(int number, siginfo_t *info, void *context) {
  (void)number, (void)info, (void)context;
  if (hits < 64) seen_at[hits++] = work;
}
static void on_child(int number) { (void)number, child_ends++; }
static void *waits(void *set) {
  for (int i = 0; i < 6; i++) {
    int number;
    sigwait(set, &number);
    printf("sigwait %d\n", number - SIGRTMIN);
  }
  return NULL;
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 4096);
  struct sigaction action = {.sa_sigaction = on_hit, .sa_flags = SA_SIGINFO | SA_RESTART};
  CHECK(sigaction(SIGUSR1, &action, NULL));
  signal(SIGCHLD, on_child);
  pid_t parent = getpid(), child = CHECK(fork());
  if (child == 0) {
    for (int i = 0; i < 20; i++) {
      kill(parent, SIGUSR1);
      usleep(100);
    }
    _exit(7);
  }
  while (child_ends == 0) {
    work++;
    if (work % 1000 == 0) getppid();
  }
  int status;
  CHECK(waitpid(child, &status, 0));
  uint64_t digest = MIX_START;
  for (int i = 0; i < hits; i++) digest = mix(digest, seen_at[i]);
  printf("hits %d at %016lx, child %x\n", hits, digest, status);

  sigset_t set;
  sigemptyset(&set);
  for (int i = 0; i < 3; i++) sigaddset(&set, SIGRTMIN + i);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  pthread_t thread;
  pthread_create(&thread, NULL, waits, &set);
  for (int i = 0; i < 6; i++) {
    union sigval value = {.sival_int = i};
    CHECK(sigqueue(parent, SIGRTMIN + i % 3, value));
  }
  pthread_join(thread, NULL);

  sigaddset(&set, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  int fd = CHECK(signalfd(-1, &set, 0));
  if (CHECK(fork()) == 0) {
    kill(parent, SIGUSR2);
    union sigval value = {.sival_int = 42};
    sigqueue(parent, SIGRTMIN, value);
    _exit(0);
  }
  for (int i = 0; i < 2; i++) {
    struct signalfd_siginfo info;
    CHECK(read(fd, &info, sizeof info));
    printf("signalfd %u from %u value %d\n", info.ssi_signo, info.ssi_pid, info.ssi_int);
  }
  wait(NULL);
  return 0;
}
