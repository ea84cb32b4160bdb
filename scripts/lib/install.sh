# `install` and `uninstall`: DockLock beside the system's own containerd. Nothing is restarted and no foreign file is edited.

INSTALL_BIN="${BPI_PREFIX:-/usr/local}/bin"
INSTALL_ETC=/etc/docklock

install_system() {
  need_root install
  local from="$CARGO_TARGET_DIR/release" program
  if [ "${1:-}" = --from ]; then
    from="${2:?--from needs a folder with the built programs}"
  else
    build release
  fi
  mkdir -p "$INSTALL_BIN" "$INSTALL_ETC/profiles"
  for program in containerd-shim-bpi-docklock docklock; do
    # A running shim keeps its old file: replace by rename, never in place.
    install -m 0755 "$from/$program" "$INSTALL_BIN/.$program.new"
    mv "$INSTALL_BIN/.$program.new" "$INSTALL_BIN/$program"
    changed "$INSTALL_BIN/$program"
  done
  ln -sfn containerd-shim-bpi-docklock "$INSTALL_BIN/containerd-shim-docklock-v1"
  changed "$INSTALL_BIN/containerd-shim-docklock-v1 (symlink)"
  if [ ! -f "$INSTALL_ETC/docklock.toml" ]; then
    cat >"$INSTALL_ETC/docklock.toml" <<'CONF'
# DockLock on this host. `docklock doctor` tells what the kernel can enforce.
key_file = "/etc/docklock/host.key"
state_dir = "/run/docklock"
spool_dir = "/var/lib/docklock/spool"
profiles_dir = "/etc/docklock/profiles"
CONF
    changed "$INSTALL_ETC/docklock.toml"
  fi
  if [ ! -f "$INSTALL_ETC/host.key" ]; then
    "$INSTALL_BIN/docklock" keygen --key-file "$INSTALL_ETC/host.key"
    changed "$INSTALL_ETC/host.key and $INSTALL_ETC/host.key.pub.pem"
  fi
  install_hint
}

install_hint() {
  cat <<'TEXT'

Now `ctr run --rm --runtime io.bpi.docklock IMAGE ID COMMAND…` works with the system's containerd; nothing was restarted.
For pods, add these lines to /etc/containerd/config.toml and restart containerd:

  version = 2
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.docklock]
    runtime_type = "io.bpi.docklock"
    pod_annotations = ["io.bpi.docklock.*"]
    container_annotations = ["io.bpi.docklock.*"]
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"

(the last two lines keep the default runtime: a file that names one runtime must name them all; containerd 2.x, config version 3: the tables are [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.…])
and tell Kubernetes about it:

  apiVersion: node.k8s.io/v1
  kind: RuntimeClass
  metadata: { name: docklock }
  handler: docklock
TEXT
}

uninstall_system() {
  need_root uninstall
  local path
  for path in "$INSTALL_BIN/containerd-shim-docklock-v1" "$INSTALL_BIN/containerd-shim-bpi-docklock" "$INSTALL_BIN/docklock"; do
    if [ -e "$path" ] || [ -L "$path" ]; then
      rm -f "$path"
      changed "removed $path"
    fi
  done
  if [ "${1:-}" = --purge ]; then
    rm -rf --one-file-system "$INSTALL_ETC" /var/lib/docklock /run/docklock
    changed "removed $INSTALL_ETC, /var/lib/docklock and /run/docklock with key, configuration and receipts"
  else
    say "kept: $INSTALL_ETC and /var/lib/docklock (key, configuration, receipts); scripts/bpi uninstall --purge removes them"
  fi
}
