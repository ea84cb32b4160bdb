# Simulated clusters of validators: tests/simulation.

# Seeds of CI: fresh ones in each run, far from those that people count up from 0.
SIM_SIZES=(4 1 7 9 10)

sim_build() {
  build_need_toolchain
  packages_need "to build" "${BUILD_PACKAGES[@]}"
  (cd "$BPI_ROOT" && step "build the simulator, profile ci" cargo build --locked --profile ci -p bpi-simulation)
}

sim_run() { # sim_run [--mutants] …: what bpi-sim takes, with --mutants what tests/simulation/mutants.py takes
  if [ "${1:-}" = --mutants ]; then
    shift
    build_need_toolchain
    packages_need "to test" "${TEST_PACKAGES[@]}"
    env BPI_CACHE="$BPI_CACHE" python3 "$BPI_ROOT/tests/simulation/mutants.py" "$@"
    return
  fi
  sim_build
  "$CARGO_TARGET_DIR/ci/bpi-sim" "$@"
}

# sim_fresh SECONDS: fresh seeds in clusters of several sizes, half of the time in those of four
sim_fresh() {
  local seconds="$1" first size time rc=0
  first=$(($(date +%s) * 1000000))
  for size in "${SIM_SIZES[@]}"; do
    time=$((size == 4 ? seconds / 2 : seconds / 8))
    "$CARGO_TARGET_DIR/ci/bpi-sim" -n "$size" --seed "$first" --seeds 1000000000 --seconds "$((time > 0 ? time : 1))" || rc=1
  done
  return "$rc"
}
