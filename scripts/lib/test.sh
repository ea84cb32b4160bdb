# The test command. Each part runs to its end whatever the others did; one summary closes the whole.

TEST_PARTS=(lint unit conformance sim validators relays mesh system fuzz vm)
PASSED=0
FAILED=0
SKIPS=()
FAILURES=()

test_all() {
  local parts=("$@") part started=$SECONDS
  [ "${#parts[@]}" -gt 0 ] || parts=("${TEST_PARTS[@]}")
  for part in "${parts[@]}"; do
    case " ${TEST_PARTS[*]} " in
      *" $part "*) ;;
      *) die "no part \"$part\" of the tests; the parts are: ${TEST_PARTS[*]}" ;;
    esac
  done
  packages_need "to build" "${BUILD_PACKAGES[@]}"
  build_need_toolchain
  rocksdb_ready ci
  mkdir -p "$BPI_CACHE/log"
  cd "$BPI_ROOT"
  for part in "${parts[@]}"; do
    local began=$SECONDS
    say "━━ $part"
    "test_$part"
    say "   $part took $((SECONDS - began)) s"
  done
  test_summary $((SECONDS - started))
}

test_summary() {
  local line
  say
  if [ "${#SKIPS[@]}" -gt 0 ]; then
    for line in "${SKIPS[@]}"; do say "skipped: $line"; done
  fi
  if [ "${#FAILURES[@]}" -gt 0 ]; then
    for line in "${FAILURES[@]}"; do say "failed:  $line"; done
  fi
  say "all of it took $1 s"
  say "$PASSED passed, $FAILED failed, ${#SKIPS[@]} skipped"
  [ "$FAILED" -eq 0 ] && [ "$PASSED" -gt 0 ]
}

pass() { PASSED=$((PASSED + ${1:-1})); }
fail() {
  FAILED=$((FAILED + 1))
  FAILURES+=("$1")
}
skip() { SKIPS+=("$1"); }

# logged NAME COMMAND…: to the terminal and to a log, whose path is left in $LOG
logged() {
  LOG="$BPI_CACHE/log/test-$1.log"
  shift
  "$@" </dev/null 2>&1 | tee "$LOG"
  return "${PIPESTATUS[0]}"
}

one() { # one TITLE COMMAND…: a check that is one test
  local title="$1"
  shift
  if step "$title" "$@"; then pass; else fail "$title"; fi
}

test_lint() {
  one "rustfmt" cargo fmt --all --check
  one "clippy, warnings are errors" cargo clippy --locked --workspace --all-targets --features bpi-simulation/beacon,bpi-protocol/frame,bpi-identity/devnet --profile ci -- -D warnings
  if command -v cargo-deny >/dev/null; then
    one "cargo deny: licences, bans, sources" cargo deny --offline check licenses bans sources
  else
    skip "cargo deny, because cargo-deny is not installed (cargo install cargo-deny)"
  fi
  if command -v shellcheck >/dev/null; then
    one "shellcheck" shellcheck --shell bash --severity warning --exclude SC2034,SC2154,SC2164 \
      scripts/bpi scripts/lib/*.sh scripts/lib/oci-image .ci/run
  else
    one "bash reads the scripts" bash -n scripts/bpi scripts/lib/*.sh
    skip "shellcheck, because it is not installed (apt-get install shellcheck)"
  fi
}

# Adds the counts of every closing line in $LOG: of cargo test, of nextest, and our own plain one.
count_log() {
  local name="$1" rc="$2" passed failed line
  passed="$(sed 's/\x1b\[[0-9;]*m//g' "$LOG" | awk '
    /^test result:/            { for (i = 1; i < NF; i++) if ($(i + 1) == "passed;") n += $i }
    /^ *Summary \[/            { for (i = 1; i < NF; i++) if ($(i + 1) ~ /^passed/) n += $i }
    /^[0-9]+ passed, [0-9]+ failed/ { n += $1 }
    END { print n + 0 }')"
  failed="$(sed 's/\x1b\[[0-9;]*m//g' "$LOG" | awk '
    /^test result:/            { for (i = 1; i < NF; i++) if ($(i + 1) == "failed;") n += $i }
    /^ *Summary \[/            { for (i = 1; i < NF; i++) if ($(i + 1) ~ /^(failed|timed)/) n += $i }
    /^[0-9]+ passed, [0-9]+ failed/ { n += $3 }
    END { print n + 0 }')"
  pass "$passed"
  FAILED=$((FAILED + failed))
  if [ "$failed" -gt 0 ]; then
    FAILURES+=("$name: $failed; see $LOG")
  elif [ "$rc" -ne 0 ]; then
    fail "$name ended with $rc; see $LOG"
  fi
  while IFS= read -r line; do skip "$line"; done < <(sed -n 's/^.*skipped: \(.*because .*\)$/\1/p' "$LOG")
}

test_unit() {
  local rc=0
  packages_need "to test" "${TEST_PACKAGES[@]}" "${MESH_PACKAGES[@]}"
  if cargo nextest --version >/dev/null 2>&1; then
    one "build the unit tests" cargo nextest run --locked --cargo-profile ci --workspace --features bpi-simulation/beacon,bpi-protocol/frame,bpi-identity/devnet --exclude bpi-tests --no-run
    logged unit cargo nextest run --locked --cargo-profile ci --workspace --features bpi-simulation/beacon,bpi-protocol/frame,bpi-identity/devnet --exclude bpi-tests --no-fail-fast \
      --status-level slow --final-status-level fail --no-tests pass || rc=$?
  else
    one "build the unit tests" cargo test --locked --profile ci --workspace --features bpi-simulation/beacon,bpi-protocol/frame,bpi-identity/devnet --exclude bpi-tests --no-run
    logged unit cargo test --locked --profile ci --workspace --features bpi-simulation/beacon,bpi-protocol/frame,bpi-identity/devnet --exclude bpi-tests --lib --bins --tests --no-fail-fast || rc=$?
  fi
  count_log unit "$rc"
  rc=0
  logged doc cargo test --locked --profile ci --workspace --features bpi-simulation/beacon,bpi-protocol/frame,bpi-identity/devnet --exclude bpi-tests --doc || rc=$?
  count_log doc "$rc"
}

test_conformance() {
  local runner rc
  packages_need "to test" "${TEST_PACKAGES[@]}"
  test_programs
  for runner in tests/conformance/*/run.py; do
    [ -e "$runner" ] || { skip "conformance, because tests/conformance has no run.py"; return 0; }
    rc=0
    logged "conformance-$(basename "$(dirname "$runner")")" \
      env DOCKLOCK="$CARGO_TARGET_DIR/ci/docklock" BPI_CACHE="$BPI_CACHE" python3 "$runner" || rc=$?
    count_log "$runner" "$rc"
  done
}

test_programs() { # the binaries that system and conformance tests drive
  one "build shim and CLI, profile ci" cargo build --locked --profile ci -p docklock -p containerd-shim-bpi-docklock
}

test_system() {
  local rc=0
  need_root "test system"
  packages_need "to run containers" "${RUN_PACKAGES[@]}"
  packages_need "to test" "${TEST_PACKAGES[@]}"
  cgroups_mount_if_missing
  test_programs
  if ! [ -f "$BPI_CACHE/containerd-2/.unpacked" ]; then
    step "fetch containerd 2.x from a newer Debian" newer_package containerd "$BPI_CACHE/containerd-2" ||
      say "   the tests on containerd 2.x will be skipped"
  fi
  one "build the system tests" cargo test --locked --profile ci -p bpi-tests --test system --no-run
  logged system env BPI_CACHE="$BPI_CACHE" BPI_ROOT="$BPI_ROOT" BPI_PROGRAMS="$CARGO_TARGET_DIR/ci" \
    cargo test --locked --quiet --profile ci -p bpi-tests --test system -- --format pretty || rc=$?
  count_log system "$rc"
}

test_validators() {
  local rc=0
  packages_need "to test" "${TEST_PACKAGES[@]}"
  logged anchor validators_anchor || rc=$?
  count_log anchor "$rc"
  rc=0
  logged validators validators_run --seconds "${BPI_KILL_SECONDS:-300}" || rc=$?
  count_log validators "$rc"
}

test_relays() {
  local rc=0
  need_root "test relays"
  packages_need "to test" "${TEST_PACKAGES[@]}" "${RELAYS_PACKAGES[@]}"
  logged strangers relays_strangers || rc=$?
  count_log strangers "$rc"
  rc=0
  logged relays relays_namespaces || rc=$?
  count_log relays "$rc"
}

# What the parts of a mesh do together, with real containers, disks, object stores and databases.
test_mesh() {
  local rc name
  need_root "test mesh"
  packages_need "to run containers" "${RUN_PACKAGES[@]}"
  packages_need "to test" "${TEST_PACKAGES[@]}" "${MESH_PACKAGES[@]}"
  cgroups_mount_if_missing
  if ! mesh_programs; then fail "mesh, because its programs do not build"; return; fi
  for name in "storm --containers ${BPI_STORM_CONTAINERS:-150} --cosign 10" "storm --containers 200 --cosign 0 --postgres" order rerun restore miscoded faults; do
    rc=0
    # shellcheck disable=SC2086
    logged "mesh-$(tr -cd a-z- <<<"$name")" mesh_world $name || rc=$?
    count_log "mesh-$(tr -cd a-z- <<<"$name")" "$rc"
  done
  one "up, status, drill and down" mesh_devnet
  rc=0
  logged mesh-compose mesh_world compose --cache "$BPI_CACHE/compose" || rc=$?
  count_log mesh-compose "$rc"
  rc=0
  logged mesh-vectors python3 availability/tests/vectors/make.py --check || rc=$?
  if [ "$rc" -eq 0 ]; then pass; else fail "availability/tests/vectors/make.py --check"; fi
  rc=0
  if command -v npm >/dev/null; then
    logged mesh-ipfs-car python3 tests/availability/ipfs_car.py "$BPI_CACHE/ipfs-car" || rc=$?
    if [ "$rc" -eq 0 ]; then pass; else fail "tests/availability/ipfs_car.py; see $LOG"; fi
    rc=0
    logged mesh-objects mesh_objects || rc=$?
    count_log mesh-objects "$rc"
  else
    skip "ipfs-car and azurite, because npm is not installed (apt-get install npm)"
  fi
}

test_sim() {
  local rc=0
  if ! sim_build; then fail "sim, because the simulator does not build"; return; fi
  logged sim sim_fresh "${BPI_SIM_SECONDS:-120}" || rc=$?
  # One line for each cluster size; a history that went wrong has a line of its own.
  PASSED=$((PASSED + $(grep -c ': no violation; ' "$LOG" || true)))
  [ "$rc" -eq 0 ] || fail "sim: $(grep -m 1 -E '^(beacon, )?seed ' "$LOG" || echo "the simulator ended with $rc")"
}

test_fuzz() {
  local rc=0
  logged fuzz bash tests/fuzz/run "${BPI_FUZZ_SECONDS:-60}" || rc=$?
  count_log fuzz "$rc"
}

test_vm() {
  local rc=0
  need_root "test vm"
  packages_need "to run containers" "${RUN_PACKAGES[@]}"
  test_programs
  logged vm vm_test || rc=$?
  count_log vm "$rc"
}
