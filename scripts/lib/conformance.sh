# The determinism corpus: the same programs natively and caged, on hosts that differ, and a table of what stayed the same.

conformance_run() { # conformance_run [--attack] [--only NAME…] [--runs N] [--full] …: what harness.py takes, with --attack attacks/run.py
  need_root "conformance"
  packages_need "to test" "${TEST_PACKAGES[@]}"
  if [ -z "${DOCKLOCK:-}" ]; then
    packages_need "to build" "${BUILD_PACKAGES[@]}"
    build_need_toolchain
    (cd "$BPI_ROOT" && step "build shim and CLI, profile ci" cargo build --locked --profile ci -p docklock -p containerd-shim-bpi-docklock)
    DOCKLOCK="$CARGO_TARGET_DIR/ci/docklock"
  fi
  mkdir -p "$BPI_CACHE/log"
  if [ "${1:-}" = --attack ]; then
    shift
    env DOCKLOCK="$DOCKLOCK" BPI_CACHE="$BPI_CACHE" python3 "$BPI_ROOT/tests/conformance/attacks/run.py" "$@"
    return
  fi
  env DOCKLOCK="$DOCKLOCK" BPI_CACHE="$BPI_CACHE" python3 "$BPI_ROOT/tests/conformance/cage/harness.py" \
    --json "$BPI_CACHE/log/conformance-cage.json" "$@"
}
