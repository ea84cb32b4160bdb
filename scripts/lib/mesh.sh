# The mesh of one machine: an authority, a relay, three validators, a pinner and an agent, each a process of its own. Nothing listens beyond loopback.
# Only processes that we started and that still are those processes are stopped.

MESH="$BPI_HOME/mesh"
MESH_VALIDATORS=3
MESH_SECONDS=60 # until validators agree, the first time

mesh_names() { # in the order in which they start
  echo r0
  local at
  for at in $(seq 0 $((MESH_VALIDATORS - 1))); do echo "v$at"; done
  echo p0 a0
}

mesh_program() {
  case "$1" in
    r*) echo "bpi-relay" ;;
    v*) echo "bpi-validator" ;;
    p*) echo "bpi-pinner" ;;
    a*) echo "bpi-agent" ;;
  esac
}

mesh_role() { local program; program="$(mesh_program "$1")"; echo "${program#bpi-}"; }
mesh_config() { echo "$MESH/$1/$(mesh_role "$1").toml"; }
mesh_run() { "$BPI_HOME/bin/$(mesh_program "$1")" --config "$(mesh_config "$1")" "${@:2}"; }

mesh_is_ours() { # mesh_is_ours NAME
  local pid
  pid="$(cat "$MESH/$1/pid" 2>/dev/null)" || return 1
  [ -r "/proc/$pid/cmdline" ] || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF -- "--config $(mesh_config "$1") run"
}

# mesh_get NAME PATH: what a process answers over its socket or port; fails when it does not.
mesh_get() {
  local name="$1" path="$2"
  case "$name" in
    v* | p*) curl -sf --max-time 2 --unix-socket "$BPI_RUN/$name.sock" "http://localhost$path" ;;
    r*) curl -sf --max-time 2 "http://127.0.0.1:$(mesh_port relay-status)$path" ;;
    a*) curl -sf --max-time 2 "http://127.0.0.1:$(mesh_port agent-status)$path" ;;
  esac
}

# mesh_field NAME PATH FIELD: a member of a flat answer.
mesh_field() { mesh_get "$1" "$2" | tr ',{}' '\n\n\n' | sed -n "s/^ *\"$3\": *\"\{0,1\}\([^\"]*\)\"\{0,1\} *$/\1/p" | head -n 1; }

# Ports are chosen once, when the mesh is made: others may have taken those that we would like.
mesh_port() { sed -n "s/^$1=//p" "$BPI_HOME/ports"; }

mesh_choose_ports() {
  local port=7690 name
  : >"$BPI_HOME/ports"
  for name in relay relay-status agent-status; do
    while ss -Hltun "sport = :$port" | grep -q .; do port=$((port + 1)); done
    echo "$name=$port" >>"$BPI_HOME/ports"
    port=$((port + 1))
  done
}

# mesh_make: keys, configurations and genesis, once; SVIDs each time.
mesh_make() {
  if [ ! -f "$MESH/made" ]; then
    mkdir -p "$MESH"
    mesh_choose_ports
    changed "made the keys, configurations and genesis of a mesh in $MESH"
  fi
  MESH_BIN="$BPI_HOME/bin" MESH_SOCKETS="$BPI_RUN" MESH_RELAY="127.0.0.1:$(mesh_port relay)" MESH_RELAY_LISTEN="127.0.0.1:$(mesh_port relay)" \
    MESH_RELAY_STATUS="127.0.0.1:$(mesh_port relay-status)" MESH_AGENT_STATUS="127.0.0.1:$(mesh_port agent-status)" MESH_SPOOL="$BPI_HOME/spool" \
    MESH_EVIDENCE="$BPI_HOME/evidence" MESH_SNAPSHOT="$BPI_HOME/class.snapshot" MESH_CONTAINERD="$DAEMON_SOCKET" MESH_HOST_ID="$DEMO_HOST_ID" \
    "$BPI_ROOT/deploy/compose/make-mesh" "$MESH" "$BPI_HOME/host.key.pub.pem" || die "the mesh could not be made"
  cp "$MESH/trust.json" "$BPI_HOME/trust.json"
}

mesh_start() { # mesh_start NAME
  mesh_is_ours "$1" && return 0
  setsid "$BPI_HOME/bin/$(mesh_program "$1")" --config "$(mesh_config "$1")" run >>"$MESH/$1/log" 2>&1 </dev/null &
  echo $! >"$MESH/$1/pid"
}

# mesh_wait NAME WHAT COMMAND…: until the command succeeds, the process ends, or time is over.
mesh_wait() {
  local name="$1" what="$2" tries
  shift 2
  for tries in $(seq $((MESH_SECONDS * 10))); do
    "$@" >/dev/null 2>&1 && return 0
    kill -0 "$(cat "$MESH/$name/pid")" 2>/dev/null || { tail -n 20 "$MESH/$name/log" >&2; die "$name ended; its log is $MESH/$name/log"; }
    [ $((tries % 50)) = 0 ] && say "   wait until $what ($((tries / 10)) s)"
    sleep 0.1
  done
  die "not within $MESH_SECONDS s: $what; the log is $MESH/$name/log"
}

mesh_moves() { [ "$(mesh_field v0 /v1/status height)" -ge 1 ]; }

mesh_up() {
  local name
  mkdir -p "$BPI_RUN"
  mesh_make
  for name in $(mesh_names); do mesh_start "$name"; done
  mesh_wait v0 "three validators agree on headers" mesh_moves
  mesh_wait a0 "the agent answers" mesh_get a0 /v1/status
  changed "a mesh runs: $(mesh_names | tr '\n' ' ')(scripts/bpi status)"
}

mesh_stop() { # mesh_stop NAME
  local pid waited
  mesh_is_ours "$1" || return 0
  pid="$(cat "$MESH/$1/pid")"
  kill "$pid"
  for waited in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  [ "$waited" -lt 100 ] || kill -9 "$pid"
  changed "stopped $(mesh_program "$1") $1, process $pid"
}

mesh_down() {
  local name
  for name in $(mesh_names | tac); do mesh_stop "$name"; done
}

mesh_status() {
  local name state
  for name in $(mesh_names); do
    if ! mesh_is_ours "$name"; then
      printf '%-4s %-14s not running\n' "$name" "$(mesh_program "$name")"
      continue
    fi
    case "$name" in
      v*) state="height $(mesh_field "$name" /v1/status height), $(mesh_field "$name" /v1/status peers) peers" ;;
      a*) state="$(mesh_get "$name" /v1/status | tr -d '"{}' | tr ',' ' ')" ;;
      *) state="$(mesh_get "$name" /health | tr -d '"{}' | tr ',' ' ')" ;;
    esac
    printf '%-4s %-14s process %-8s %s\n' "$name" "$(mesh_program "$name")" "$(cat "$MESH/$name/pid")" "$state"
  done
  if daemon_is_ours; then say "     containerd     process $(cat "$DAEMON_PID"), $DAEMON_SOCKET"; else say "     containerd     not running"; fi
}

mesh_logs() { # mesh_logs [NAME] [tail's options]
  local name="${1:-}" logs=()
  if [ -n "$name" ] && [ -f "$MESH/$name/log" ]; then
    shift
    tail "${@:--n50}" "$MESH/$name/log"
    return
  fi
  for name in $(mesh_names); do
    [ -f "$MESH/$name/log" ] && logs+=("$MESH/$name/log")
  done
  [ "${#logs[@]}" -gt 0 ] || die "there are no logs; scripts/bpi up makes a mesh"
  tail "${@:--n5}" "${logs[@]}"
}

# mesh_drill: everything of the tenant again, from nothing but a copy of db.class, the reader's key and the pinner's shards.
mesh_drill() {
  local id evidence folder="$BPI_HOME/drill" lost restored number count=0 started
  need_root drill
  mesh_is_ours a0 || die "no mesh runs; scripts/bpi up starts one"
  rm -rf --one-file-system "$folder" && mkdir -p "$folder"
  lost="$folder/lost" restored="$folder/restored"
  say "…  three containers, and their evidence"
  for number in 1 2 3; do
    id="drill-$(date +%s)-$$-$number"
    daemon_ctr -n "$DEMO_NAMESPACE" run --rm --runtime io.bpi.docklock "$DEMO_IMAGE" "$id" sh -c "echo drill $number" >/dev/null || die "a container ended with $?"
  done
  evidence="$(demo_evidence "$id")" || exit 1
  # The copy follows each change by half a second.
  for number in $(seq 100); do
    grep -qF "$(basename "$evidence" | sed 's/-[0-9]*$//')" "$BPI_HOME/class.snapshot" 2>/dev/null && [ "$BPI_HOME/class.snapshot" -nt "$evidence" ] && break
    sleep 0.1
  done
  [ "$number" -lt 100 ] || die "the copy of db.class is older than the last evidence after 10 s"
  mesh_stop a0
  mkdir -p "$lost" && mv "$BPI_HOME/spool" "$BPI_HOME/evidence" "$MESH"/a0/class.db* "$MESH/a0/outbox" "$lost/"
  say "   lost: the spool, the evidence, db.class and the outbox (moved to $lost)"
  started="$(date +%s%3N)"
  say "\$ bpi-agent restore --snapshot $BPI_HOME/class.snapshot --reader $MESH/reader.key --to $restored"
  mesh_run a0 restore --snapshot "$BPI_HOME/class.snapshot" --reader "$MESH/reader.key" --to "$restored" || mesh_drill_undo "$lost"
  sed "s|^spool_dir = .*|spool_dir = \"$restored/spool\"|; s|^class = .*|class = \"sqlite:$restored/class.db\"|" "$(mesh_config a0)" >"$MESH/a0/drill.toml"
  "$BPI_HOME/bin/bpi-agent" --config "$MESH/a0/drill.toml" evidence --to "$restored/evidence" || mesh_drill_undo "$lost"
  say "   restored in $(($(date +%s%3N) - started)) ms; the copy of db.class is at most 500 ms older than the last change"
  for folder in "$restored"/spool/*; do
    # Of the records alone: open/, configs/ and lock are DockLock's own.
    for evidence in "$folder"/records/*.json; do
      cmp -s "$evidence" "$lost/spool/$(basename "$folder")/records/$(basename "$evidence")" || { say "$evidence differs from what was lost"; mesh_drill_undo "$lost"; }
      count=$((count + 1))
    done
  done
  say "   $count records are what they were, byte for byte"
  count=0
  for evidence in "$restored"/evidence/*/*; do
    unshare -n "$BPI_HOME/bin/docklock" verify "$evidence" --trust "$BPI_HOME/trust.json" --level final >/dev/null || { say "$evidence does not verify"; mesh_drill_undo "$lost"; }
    count=$((count + 1))
  done
  say "   $count pieces of evidence, made of what was restored, verify offline up to final"
  mesh_drill_back "$lost"
  changed "the lost files are back, and the agent runs again"
}

mesh_drill_back() {
  mv "$1/spool" "$1/evidence" "$BPI_HOME/" && mv "$1"/class.db* "$1/outbox" "$MESH/a0/" && rm -f "$MESH/a0/drill.toml"
  mesh_start a0
  mesh_wait a0 "the agent answers" mesh_get a0 /v1/status
}

mesh_drill_undo() {
  mesh_drill_back "$1"
  die "the drill failed; the lost files are back, and what was restored is in $BPI_HOME/drill"
}

# The same with processes that tests own: tests/mesh.

MESH_PACKAGES=(fiu-utils postgresql docker.io docker-compose debootstrap)

mesh_programs() {
  rocksdb_ready ci
  (cd "$BPI_ROOT" && step "build a mesh, profile ci" cargo build --locked --profile ci -p docklock -p containerd-shim-bpi-docklock -p bpi-identity -p bpi-relay \
    -p bpi-validator -p bpi-pinner -p bpi-agent -p bpi-conformance --bins --example miscoder --features bpi-identity/devnet)
}

mesh_world() { # mesh_world SCRIPT: one of tests/mesh, and what it takes
  python3 "$BPI_ROOT/tests/mesh/$1.py" --programs "$CARGO_TARGET_DIR/ci" "${@:2}"
}

mesh_bench() { # mesh_bench bench | backlog, and what that script of tests/mesh takes
  need_root "bench mesh"
  packages_need "to run containers" "${RUN_PACKAGES[@]}"
  packages_need "to test" "${TEST_PACKAGES[@]}"
  cgroups_mount_if_missing
  mesh_programs && mesh_world "$@"
}

mesh_objects() { # bpi-pinner on real object stores
  local binary
  (cd "$BPI_ROOT" && step "build the pinner's tests, profile ci" cargo test --locked --profile ci -p bpi-pinner --test pinner --no-run) || return
  binary="$(find "$CARGO_TARGET_DIR/ci/deps" -maxdepth 1 -name 'pinner-*' -type f -executable -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2)"
  python3 "$BPI_ROOT/tests/pinner/objects.py" "$BPI_CACHE/objects" "$binary"
}

# mesh_devnet: `up`, `status`, `drill` and `down` as a user has them, in folders of their own.
mesh_devnet() {
  local home rc=0
  home="$(mktemp -d)"
  export BPI_HOME="$home" BPI_RUN="/run/bpi-test-$$"
  "$BPI_ROOT/scripts/bpi" up --from "$CARGO_TARGET_DIR/ci" && "$BPI_ROOT/scripts/bpi" status && "$BPI_ROOT/scripts/bpi" drill || rc=$?
  "$BPI_ROOT/scripts/bpi" down --purge || rc=$?
  rm -rf --one-file-system "$home"
  return "$rc"
}
