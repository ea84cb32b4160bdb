/* Deaths at bad moments: in the middle of calls, by a sibling, by the parent's end, by exit_group and execve of another thread. */
#include "say.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

static void status_of(const char *who, pid_t pid) {
  int status;
  pid_t ended = waitpid(pid, &status, 0);
  printf("%s: %s %s %d\n", who, ended == pid ? "reaped" : strerrorname_np(errno), WIFSIGNALED(status) ? "signal" : "exit",
         WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static void busy(int kind) {
  int ends[2];
  char byte;
  NEED(pipe(ends));
  for (;;) switch (kind % 6) {
      case 0: read(ends[0], &byte, 1); break;
      case 1: pause(); break;
      case 2: nanosleep(&(struct timespec){1000, 0}, 0); break;
      case 3: syscall(SYS_clock_gettime, CLOCK_MONOTONIC, ends); sched_yield(); break;
      case 4: close(open("/proc/self/status", O_RDONLY)); sched_yield(); break;
      case 5: waitpid(-1, 0, 0); sched_yield(); break;
    }
}

static void by_parent(void) {
  for (int kind = 0; kind < 6; kind++)
    for (int delay = 0; delay < 3; delay++) {
      pid_t child = NEED(fork());
      if (!child) busy(kind);
      for (int i = 0; i < delay * 3; i++) sched_yield();
      kill(child, SIGKILL);
      status_of("child", child);
    }
}

static void by_itself(void) {
  pid_t child = NEED(fork());
  if (!child) {
    kill(getpid(), SIGKILL);
    _exit(1);
  }
  status_of("kill", child);
  child = NEED(fork());
  if (!child) {
    setpgid(0, 0);
    for (int i = 0; i < 4; i++)
      if (!fork()) busy(i);
    kill(0, SIGKILL);
    _exit(1);
  }
  status_of("group", child);
}

static void *busy_thread(void *kind) {
  busy((int)(long)kind);
  return 0;
}

static void by_exit_group(void) {
  for (int round = 0; round < 4; round++) {
    pid_t child = NEED(fork());
    if (!child) {
      pthread_t thread;
      for (long i = 0; i < 8; i++) pthread_create(&thread, 0, busy_thread, (void *)i);
      for (int i = 0; i < round; i++) sched_yield();
      _exit(40 + round);
    }
    status_of("exit_group", child);
  }
}

static void *exec_thread(void *unused) {
  (void)unused;
  execl("/proc/self/exe", "kills", "end", (char *)0);
  _exit(errno);
}

static void by_exec(void) {
  for (int round = 0; round < 4; round++) {
    pid_t child = NEED(fork());
    if (!child) {
      pthread_t thread;
      for (long i = 0; i < 8; i++) pthread_create(&thread, 0, busy_thread, (void *)i);
      if (round & 1) exec_thread(0);
      pthread_create(&thread, 0, exec_thread, 0);
      if (round & 2) pthread_exit(0);
      for (;;) pause();
    }
    status_of("exec", child);
  }
}

/* A child that asked to die with its parent's thread. */
static void by_parents_end(void) {
  int ends[2];
  NEED(pipe(ends));
  pid_t child = NEED(fork());
  if (!child) {
    for (int i = 0; i < 4; i++)
      if (!fork()) {
        prctl(PR_SET_PDEATHSIG, i & 1 ? SIGKILL : SIGTERM);
        close(ends[0]);
        busy(i);
      }
    for (int i = 0; i < 20; i++) sched_yield();
    _exit(7);
  }
  status_of("parent", child);
  close(ends[1]);
  char byte;
  printf("grandchildren are gone: %zd\n", read(ends[0], &byte, 1));
}

/* Neither of two users may kill the other's processes: a kill of everybody must wait only for those it reached. */
static void of_others(void) {
  pid_t root_child = NEED(fork());
  if (!root_child) busy(0);
  pid_t child = NEED(fork());
  if (!child) {
    NEED(setuid(12345));
    pid_t own = NEED(fork());
    if (!own) busy(1);
    printf("kill everybody: %d\n", kill(-1, SIGKILL));
    fflush(stdout);
    status_of("own", own);
    _exit(0);
  }
  status_of("other user", child);
  printf("the first user's child lives: %d\n", kill(root_child, 0));
  kill(root_child, SIGKILL);
  status_of("child", root_child);
}

static void by_a_timer(void) {
  pid_t child = NEED(fork());
  if (!child) {
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
    NEED(timer_create(CLOCK_MONOTONIC, &event, &timer));
    struct itimerspec when = {.it_value = {0, 5000000}};
    NEED(timer_settime(timer, 0, &when, 0));
    busy(2);
  }
  status_of("timer", child);
}

static void by_pidfd(void) {
  pid_t child = NEED(fork());
  if (!child) busy(0);
  int fd = NEED((int)syscall(SYS_pidfd_open, child, 0));
  printf("pidfd: %ld\n", syscall(SYS_pidfd_send_signal, fd, SIGKILL, 0, 0));
  status_of("pidfd", child);
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "end")) return 9;
  static const struct part parts[] = {
      {"parent", by_parent}, {"itself", by_itself}, {"exit-group", by_exit_group}, {"exec", by_exec}, {"parents-end", by_parents_end},
      {"others", of_others}, {"timer", by_a_timer}, {"pidfd", by_pidfd},
  };
  return run_parts(parts, COUNT(parts), argc, argv);
}
