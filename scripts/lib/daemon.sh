# A private containerd: own root, state, socket and configuration. Only a process that we started and that still is that process is stopped.

DAEMON_SOCKET="$BPI_RUN/containerd.sock"
DAEMON_PID="$BPI_RUN/containerd.pid"

daemon_is_ours() {
  local pid
  [ -f "$DAEMON_PID" ] || return 1
  pid="$(cat "$DAEMON_PID")"
  [ -r "/proc/$pid/cmdline" ] || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF -- "--config $BPI_HOME/containerd.toml"
}

daemon_config() {
  cat >"$BPI_HOME/containerd.toml" <<CONF
version = 2
root = "$BPI_HOME/containerd"
state = "$BPI_RUN/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$DAEMON_SOCKET"
CONF
}

# Without cgroups no runtime can start a container; a machine without an init system may not have mounted them.
cgroups_mount_if_missing() {
  [ -e /sys/fs/cgroup/cgroup.controllers ] && return 0
  grep -q ' /sys/fs/cgroup/[a-z,]* cgroup ' /proc/mounts && return 0
  mount -t cgroup2 none /sys/fs/cgroup || die "no cgroup file system is mounted at /sys/fs/cgroup and mounting one failed"
  changed "mounted cgroup2 at /sys/fs/cgroup"
}

daemon_up() {
  need_short_socket "$DAEMON_SOCKET"
  daemon_is_ours && return 0
  mkdir -p "$BPI_HOME" "$BPI_RUN"
  chmod 0711 "$BPI_RUN"
  cgroups_mount_if_missing
  daemon_config
  PATH="$BPI_HOME/bin:$PATH" DOCKLOCK_CONFIG="$BPI_HOME/docklock.toml" \
    setsid containerd --config "$BPI_HOME/containerd.toml" >>"$BPI_HOME/containerd.log" 2>&1 </dev/null &
  echo $! >"$DAEMON_PID"
  local tries
  for tries in $(seq 150); do
    daemon_is_ours && daemon_ctr version >/dev/null 2>&1 && break
    kill -0 "$(cat "$DAEMON_PID")" 2>/dev/null ||
      { tail -n 20 "$BPI_HOME/containerd.log" >&2; die "containerd ended at once; its log is $BPI_HOME/containerd.log"; }
    sleep 0.1
  done
  [ "$tries" -lt 150 ] || die "containerd did not answer within 15 s; its log is $BPI_HOME/containerd.log"
  changed "started a private containerd, process $(cat "$DAEMON_PID"), socket $DAEMON_SOCKET"
}

daemon_ctr() { ctr --address "$DAEMON_SOCKET" "$@"; }

daemon_stop_tasks() {
  local namespace task
  for namespace in $(daemon_ctr namespaces list -q 2>/dev/null); do
    for task in $(daemon_ctr -n "$namespace" tasks list -q 2>/dev/null); do
      daemon_ctr -n "$namespace" tasks delete --force "$task" >/dev/null 2>&1 || say "task $namespace/$task did not stop"
    done
  done
}

daemon_down() {
  local pid waited
  if daemon_is_ours; then
    pid="$(cat "$DAEMON_PID")"
    daemon_stop_tasks
    kill "$pid"
    for waited in $(seq 100); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    [ "$waited" -lt 100 ] || kill -9 "$pid"
    changed "stopped the private containerd, process $pid"
  fi
  local mountpoint
  awk -v a="$BPI_RUN/" -v b="$BPI_HOME/" 'index($2, a) == 1 || index($2, b) == 1 { print $2 }' /proc/mounts | sort -r |
    while read -r mountpoint; do
      umount "$mountpoint" && changed "unmounted $mountpoint"
    done
  if [ -d "$BPI_RUN" ]; then
    rm -rf --one-file-system "$BPI_RUN"
    changed "removed $BPI_RUN"
  fi
}
