/* What programs read below /proc and /sys, and a few things they should not find there. */
#include "check.h"
#include <dirent.h>
#include <fcntl.h>

static const char *const PATHS[] = {
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/uptime", "/proc/loadavg", "/proc/version", "/proc/cmdline",
    "/proc/filesystems", "/proc/mounts", "/proc/self/mountinfo", "/proc/self/stat", "/proc/self/statm", "/proc/self/status",
    "/proc/self/maps", "/proc/self/smaps", "/proc/self/io", "/proc/self/sched", "/proc/self/schedstat", "/proc/self/limits",
    "/proc/self/cgroup", "/proc/self/comm", "/proc/self/cmdline", "/proc/self/environ", "/proc/self/auxv", "/proc/self/wchan",
    "/proc/self/oom_score", "/proc/self/oom_score_adj", "/proc/self/loginuid", "/proc/self/sessionid", "/proc/self/timens_offsets",
    "/proc/self/uid_map", "/proc/self/mountstats", "/proc/self/net/dev", "/proc/self/numa_maps", "/proc/1/stat", "/proc/vmstat",
    "/proc/zoneinfo", "/proc/interrupts", "/proc/softirqs", "/proc/diskstats", "/proc/partitions", "/proc/swaps", "/proc/modules",
    "/proc/buddyinfo", "/proc/pressure/cpu", "/proc/schedstat", "/proc/net/tcp", "/proc/net/unix", "/proc/net/route", "/proc/locks",
    "/proc/sys/kernel/osrelease", "/proc/sys/kernel/version", "/proc/sys/kernel/hostname", "/proc/sys/kernel/pid_max",
    "/proc/sys/kernel/threads-max", "/proc/sys/kernel/ns_last_pid", "/proc/sys/kernel/random/entropy_avail",
    "/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/random/uuid", "/proc/sys/kernel/cap_last_cap", "/proc/sys/kernel/ngroups_max",
    "/proc/sys/fs/file-nr", "/proc/sys/fs/file-max", "/proc/sys/fs/inode-nr", "/proc/sys/fs/dentry-state", "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/max_map_count", "/proc/sys/net/core/somaxconn", "/proc/sys/net/ipv4/ip_local_port_range",
    "/sys/devices/system/cpu/online", "/sys/devices/system/cpu/possible", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
    "/sys/devices/system/node/node0/meminfo", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/class/dmi/id/product_uuid",
    "/sys/fs/cgroup/cgroup.controllers", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cpu.max", "/sys/block", "/sys/kernel/uevent_seqnum",
    "/etc/machine-id", "/etc/hostname",
};

int main(void) {
  static char text[1 << 20];
  for (unsigned i = 0; i < sizeof PATHS / sizeof *PATHS; i++) {
    int fd = open(PATHS[i], O_RDONLY);
    if (fd < 0) {
      printf("== %s errno %d\n", PATHS[i], errno);
      continue;
    }
    size_t length = 0;
    ssize_t got = 0;
    while (length < sizeof text && (got = read(fd, text + length, sizeof text - length)) > 0) length += got;
    printf("== %s %zu bytes%s\n", PATHS[i], length, got < 0 ? " and then an error" : "");
    for (size_t at = 0; at < length; at++) putchar(text[at] == '\n' || (text[at] >= ' ' && text[at] < 127) ? text[at] : '.');
    putchar('\n');
    close(fd);
  }
  const char *const links[] = {"/proc/self", "/proc/self/exe", "/proc/self/cwd", "/proc/self/ns/pid", "/proc/self/ns/net", "/proc/self/fd/0", "/proc/thread-self"};
  for (unsigned i = 0; i < sizeof links / sizeof *links; i++) {
    ssize_t length = readlink(links[i], text, 4095);
    text[length < 0 ? 0 : length] = 0;
    printf("%s -> %s\n", links[i], length < 0 ? strerror(errno) : text);
  }
  const char *const folders[] = {"/proc", "/sys", "/sys/devices/system/cpu"};
  for (unsigned i = 0; i < sizeof folders / sizeof *folders; i++) {
    DIR *dir = opendir(folders[i]);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) printf("%s/%s\n", folders[i], entry->d_name);
  }
  return 0;
}
