/* Signals to everybody, stops, and storms of handlers that jump out of calls. */
#include "say.h"
#include <pthread.h>
#include <setjmp.h>
#include <sys/time.h>
#include <time.h>

static void stops(void) {
  pid_t child = NEED(fork());
  if (!child) {
    for (int i = 0; i < 3; i++) raise(SIGSTOP);
    _exit(5);
  }
  int status;
  for (;;) {
    pid_t told = waitpid(child, &status, WUNTRACED);
    if (told < 0 || !WIFSTOPPED(status)) break;
    printf("stopped by %d\n", WSTOPSIG(status));
    kill(child, SIGCONT);
  }
  printf("exit %d\n", WEXITSTATUS(status));
}

static void stopped_by_another(void) {
  pid_t child = NEED(fork());
  if (!child)
    for (;;) nanosleep(&(struct timespec){0, 1000000}, 0);
  for (int i = 0; i < 5; i++) {
    kill(child, SIGSTOP);
    sched_yield();
    kill(child, SIGCONT);
    sched_yield();
  }
  kill(child, SIGSTOP);
  kill(child, SIGKILL);
  int status;
  NEED(waitpid(child, &status, 0));
  printf("ended by %d\n", WTERMSIG(status));
}

static volatile long jumps;
static sigjmp_buf back;
static void jump(int number) {
  (void)number;
  jumps++;
  siglongjmp(back, 1);
}

/* Timers that interrupt calls, whose handlers never return to them. */
static void storm(void) {
  signal(SIGALRM, jump);
  struct itimerval often = {{0, 100}, {0, 100}};
  setitimer(ITIMER_REAL, &often, 0);
  int ends[2];
  char byte;
  NEED(pipe(ends));
  for (volatile int round = 0; round < 200; round++) {
    if (sigsetjmp(back, 1)) continue;
    switch (round % 4) {
      case 0: read(ends[0], &byte, 1); break;
      case 1: pause(); break;
      case 2: nanosleep(&(struct timespec){100, 0}, 0); break;
      case 3: waitpid(-1, 0, 0); sched_yield(); break;
    }
  }
  setitimer(ITIMER_REAL, &(struct itimerval){0}, 0);
  printf("jumps %ld\n", jumps);
}

static volatile long handled;
static void count(int number) {
  (void)number;
  handled++;
}

static void *receive(void *unused) {
  (void)unused;
  for (int i = 0; i < 2000; i++) sched_yield();
  return 0;
}

static void cross(void) {
  signal(SIGUSR1, count);
  pthread_t threads[6];
  for (size_t i = 0; i < COUNT(threads); i++) pthread_create(&threads[i], 0, receive, 0);
  for (int i = 0; i < 3000; i++) pthread_kill(threads[i % COUNT(threads)], SIGUSR1);
  for (size_t i = 0; i < COUNT(threads); i++) pthread_join(threads[i], 0);
  printf("handled %ld\n", handled);
}

/* More queued signals than may be. */
static void queue(void) {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, 0);
  int queued = 0;
  while (queued < 3000 && !sigqueue(getpid(), SIGRTMIN + queued % 10, (union sigval){queued})) queued++;
  printf("the queue is %s\n", queued < 3000 ? "limited" : "long");
  int taken = 0;
  while (sigtimedwait(&all, 0, &(struct timespec){0, 0}) > 0) taken++;
  printf("all were taken: %d\n", taken == queued);
}

static void everybody(void) {
  pid_t child = NEED(fork());
  if (!child) {
    for (int i = 0; i < 5; i++)
      if (!fork())
        for (;;) pause();
    for (int i = 0; i < 20; i++) sched_yield();
    for (int number = 1; number < 65; number++)
      if (number != SIGSTOP && number != SIGTSTP && number != SIGTTIN && number != SIGTTOU && number != SIGCONT) signal(number, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    kill(-1, SIGTERM);
    int reaped = 0, status;
    while (wait(&status) > 0) reaped += WTERMSIG(status) == SIGTERM;
    printf("reaped %d\n", reaped);
    fflush(stdout);
    _exit(0);
  }
  signal(SIGTERM, SIG_IGN);
  NEED(waitpid(child, 0, 0));
}

int main(int argc, char **argv) {
  static const struct part parts[] = {{"stops", stops}, {"another", stopped_by_another}, {"storm", storm},
                                      {"cross", cross}, {"queue", queue}, {"everybody", everybody}};
  return run_parts(parts, COUNT(parts), argc, argv);
}
