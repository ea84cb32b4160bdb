/* What tells a host from another: names, sizes, limits, load. */
#include "check.h"
#include <sched.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

int main(void) {
  struct utsname name;
  CHECK(uname(&name));
  printf("%s %s %s %s %s %s\n", name.sysname, name.nodename, name.release, name.version, name.machine, name.domainname);
  char host[256];
  CHECK(gethostname(host, sizeof host));
  printf("hostname %s hostid %lx\n", host, gethostid());
  struct sysinfo s;
  CHECK(sysinfo(&s));
  printf("uptime %ld loads %lu %lu %lu ram %lu free %lu shared %lu buffer %lu swap %lu procs %u\n", s.uptime, s.loads[0], s.loads[1], s.loads[2],
         s.totalram, s.freeram, s.sharedram, s.bufferram, s.totalswap, s.procs);
  cpu_set_t set;
  CPU_ZERO(&set);
  CHECK(sched_getaffinity(0, sizeof set, &set));
  printf("affinity %d nprocs %d conf %d phys %ld avphys %ld\n", CPU_COUNT(&set), get_nprocs(), get_nprocs_conf(), get_phys_pages(), get_avphys_pages());
  for (int cpu = 0; cpu < 64; cpu++)
    if (CPU_ISSET(cpu, &set)) printf("cpu %d\n", cpu);
  for (int limit = 0; limit < RLIM_NLIMITS; limit++) {
    struct rlimit r;
    CHECK(getrlimit(limit, &r));
    printf("rlimit %d %lx %lx\n", limit, r.rlim_cur, r.rlim_max);
  }
  double loads[3] = {0};
  printf("getloadavg %d", getloadavg(loads, 3));
  printf(" %f %f %f\n", loads[0], loads[1], loads[2]);
  printf("priority %d policy %d\n", getpriority(PRIO_PROCESS, 0), sched_getscheduler(0));
  return 0;
}
