# Simulated clusters of validators: tests/simulation.

# Seeds of CI: fresh ones in each run, far from those that people count up from 0.
SIM_SIZES=(4 1 7 9 10)

sim_build() {
  build_need_toolchain
  packages_need "to build" "${BUILD_PACKAGES[@]}"
  (cd "$BPI_ROOT" && step "build the simulator, profile ci" cargo build --locked --profile ci -p bpi-simulation --features beacon)
}

# sim_campaign NAME|FILE …: goes on with a campaign, whose counts are in $BPI_CACHE/campaigns/NAME.tsv or in the file. A copy of the program runs,
# so that a build does not take it away.
sim_campaign() {
  local name="${1:-}" file
  [ -n "$name" ] || die "sim --campaign needs a name, or a file (with a slash) for its counts"
  shift
  case "$name" in
    */*) file="$name" ;;
    *) file="$BPI_CACHE/campaigns/$name.tsv" ;;
  esac
  mkdir -p "$(dirname "$file")"
  build_need_toolchain
  packages_need "to build" "${BUILD_PACKAGES[@]}"
  (cd "$BPI_ROOT" && step "build the simulator, profile campaign" cargo build --locked --profile campaign -p bpi-simulation)
  cp "$CARGO_TARGET_DIR/campaign/bpi-sim" "$file.program.new"
  mv "$file.program.new" "$file.program"
  "$file.program" --campaign "$file" "$@"
}

sim_run() { # sim_run [--mutants | --campaign NAME] …: what bpi-sim takes, with --mutants what tests/simulation/mutants.py takes
  if [ "${1:-}" = --mutants ]; then
    shift
    build_need_toolchain
    packages_need "to test" "${TEST_PACKAGES[@]}"
    env BPI_CACHE="$BPI_CACHE" python3 "$BPI_ROOT/tests/simulation/mutants.py" "$@"
    return
  fi
  if [ "${1:-}" = --campaign ]; then
    shift
    sim_campaign "$@"
    return
  fi
  sim_build
  "$CARGO_TARGET_DIR/ci/bpi-sim" "$@"
}

# sim_fresh SECONDS: fresh seeds in clusters of several sizes, half of the time in those of four; and a quarter as long again of the beacon
sim_fresh() {
  local seconds="$1" first size time rc=0
  first=$(($(date +%s) * 1000000))
  for size in "${SIM_SIZES[@]}"; do
    time=$((size == 4 ? seconds / 2 : seconds / 8))
    "$CARGO_TARGET_DIR/ci/bpi-sim" -n "$size" --seed "$first" --seeds 1000000000 --seconds "$((time > 0 ? time : 1))" || rc=1
  done
  for size in 4 7; do
    "$CARGO_TARGET_DIR/ci/bpi-sim" --beacon -n "$size" --seed "$first" --seeds 1000000000 --seconds "$((seconds / 8 > 0 ? seconds / 8 : 1))" || rc=1
  done
  return "$rc"
}
