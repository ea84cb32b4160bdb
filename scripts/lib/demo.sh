# `up`, `down`, `doctor`, `env`: the whole way of one receipt on this machine.

DEMO_IMAGE=bpi.local/demo:1
DEMO_NAMESPACE=demo
DEMO_HOST_ID=spiffe://bpi.devnet/host/here

demo_image() {
  local rootfs="$BPI_CACHE/demo-rootfs" archive="$BPI_CACHE/demo.tar"
  rm -rf "$rootfs" && mkdir -p "$rootfs"/{bin,etc,tmp,proc,sys,dev,root}
  cp /bin/busybox "$rootfs/bin/busybox"
  local applet
  for applet in $(/bin/busybox --list); do
    [ "$applet" = busybox ] || ln -s busybox "$rootfs/bin/$applet"
  done
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$rootfs/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$rootfs/etc/group"
  "$BPI_ROOT/scripts/lib/oci-image" "$rootfs" "$DEMO_IMAGE" "$archive"
  rm -rf "$rootfs"
}

demo_binaries() { # demo_binaries FOLDER: where the private containerd looks for shims
  local from="$1"
  mkdir -p "$BPI_HOME/bin"
  local program
  for program in containerd-shim-bpi-docklock docklock bpi-devnet-ca bpi-relay bpi-validator bpi-pinner bpi-agent; do
    # Over a program that runs: a new file takes its name.
    install -m 0755 "$from/$program" "$BPI_HOME/bin/$program.new" && mv "$BPI_HOME/bin/$program.new" "$BPI_HOME/bin/$program"
  done
  ln -sfn containerd-shim-bpi-docklock "$BPI_HOME/bin/containerd-shim-docklock-v1"
}

demo_config() {
  mkdir -p "$BPI_HOME/profiles"
  cat >"$BPI_HOME/docklock.toml" <<CONF
# Written by scripts/bpi up.
host_id = "$DEMO_HOST_ID"
key_file = "$BPI_HOME/host.key"
state_dir = "$BPI_RUN/docklock"
spool_dir = "$BPI_HOME/spool"
profiles_dir = "$BPI_HOME/profiles"
agent_socket = "$BPI_RUN/agent.sock"
CONF
  if [ ! -f "$BPI_HOME/host.key" ]; then
    DOCKLOCK_CONFIG="$BPI_HOME/docklock.toml" "$BPI_HOME/bin/docklock" keygen --key-file "$BPI_HOME/host.key"
    changed "made the host key $BPI_HOME/host.key (its public half: $BPI_HOME/host.key.pub.pem)"
  fi
}

demo_docklock() { DOCKLOCK_CONFIG="$BPI_HOME/docklock.toml" "$BPI_HOME/bin/docklock" "$@"; }

demo_up() { # demo_up [--from FOLDER]
  local from="$CARGO_TARGET_DIR/release"
  need_root up
  packages_need "to run containers" "${RUN_PACKAGES[@]}"
  if [ "${1:-}" = --from ]; then
    from="${2:?scripts/bpi up --from needs the folder of the programs}"
  else
    build_all release
  fi
  demo_binaries "$from"
  demo_config
  daemon_up
  mesh_up
  say "…  make the demo image here, from busybox"
  say "   $DEMO_IMAGE $(demo_image)"
  daemon_ctr -n "$DEMO_NAMESPACE" images import "$BPI_CACHE/demo.tar" >/dev/null
  demo_run
  say
  say "The private containerd goes on. To use it:  eval \"\$(scripts/bpi env)\"   To stop it:  scripts/bpi down"
}

demo_run() {
  local id evidence
  id="hello-$(date +%s)-$$"
  say
  say "\$ ctr run --rm --runtime io.bpi.docklock $DEMO_IMAGE $id sh -c 'echo …; uname -n; id -u'"
  daemon_ctr -n "$DEMO_NAMESPACE" run --rm --runtime io.bpi.docklock "$DEMO_IMAGE" "$id" \
    sh -c 'echo "hello from inside the cage"; uname -n; id -u' || die "the container ended with $?"
  say
  evidence="$BPI_HOME/evidence-of-up/$id"
  mkdir -p "$BPI_HOME/evidence-of-up"
  say "\$ docklock receipts export $id $evidence --wait final"
  demo_docklock receipts export --boundary "$DEMO_NAMESPACE" "$id" "$evidence" --wait final
  say
  say "\$ docklock verify $evidence --trust $BPI_HOME/trust.json --level final"
  demo_docklock verify "$evidence" --trust "$BPI_HOME/trust.json" --level final
}

# demo_evidence ID: the folder of a container's evidence, when the mesh has made it final.
demo_evidence() {
  local tries found
  for tries in $(seq 300); do
    found="$(find "$BPI_HOME/evidence/$DEMO_NAMESPACE" -maxdepth 1 -name "$1-*" ! -name '*.part' 2>/dev/null | head -n 1)"
    [ -n "$found" ] && { echo "$found"; return; }
    sleep 0.1
  done
  die "no evidence of $1 within 30 s; the agent's log is $MESH/a0/log"
}

demo_down() {
  need_root down
  mesh_down
  daemon_down
  if [ "${1:-}" = --purge ]; then
    rm -rf --one-file-system "$BPI_HOME"
    changed "removed $BPI_HOME with its key and receipts"
  elif [ -d "$BPI_HOME" ]; then
    say "kept: $BPI_HOME (key, receipts, images) and $CARGO_TARGET_DIR (build); scripts/bpi down --purge removes the first"
  fi
}

demo_env() {
  printf 'export CONTAINERD_ADDRESS=%q CONTAINERD_NAMESPACE=%q DOCKLOCK_CONFIG=%q PATH=%q:"$PATH"\n' \
    "$DAEMON_SOCKET" "$DEMO_NAMESPACE" "$BPI_HOME/docklock.toml" "$BPI_HOME/bin"
}

demo_doctor() {
  local missing
  missing="$(packages_missing "${BUILD_PACKAGES[@]}" "${RUN_PACKAGES[@]}" "${TEST_PACKAGES[@]}" "${VM_PACKAGES[@]}" | tr '\n' ' ')"
  say "packages missing: ${missing:-none}"
  say "containerd:       $(containerd --version 2>/dev/null || echo none)"
  say "rust:             $(rustc --version 2>/dev/null || echo none)"
  if daemon_is_ours; then say "private daemon:   process $(cat "$DAEMON_PID"), $DAEMON_SOCKET"; else say "private daemon:   not running"; fi
  local docklock
  for docklock in "$BPI_HOME/bin/docklock" "$CARGO_TARGET_DIR/release/docklock" "$CARGO_TARGET_DIR/ci/docklock"; do
    if [ -x "$docklock" ]; then
      say
      DOCKLOCK_CONFIG="${DOCKLOCK_CONFIG:-$([ -f "$BPI_HOME/docklock.toml" ] && echo "$BPI_HOME/docklock.toml" || true)}"
      if [ -n "$DOCKLOCK_CONFIG" ]; then export DOCKLOCK_CONFIG; else unset DOCKLOCK_CONFIG; fi
      exec "$docklock" doctor "$@"
    fi
  done
  say "docklock:         not built yet; scripts/bpi up builds it"
}
