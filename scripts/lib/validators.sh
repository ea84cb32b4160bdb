# Clusters of real validators on loopback: tests/validators.

validators_build() {
  build_need_toolchain
  packages_need "to build" "${BUILD_PACKAGES[@]}"
  rocksdb_ready ci
  (cd "$BPI_ROOT" && step "build validator, relay and authority, profile ci" cargo build --locked --profile ci -p bpi-validator -p bpi-relay -p bpi-identity --features bpi-identity/devnet)
}

validators_run() { # what tests/validators/storm.py takes
  packages_need "to test" "${TEST_PACKAGES[@]}"
  validators_build
  python3 "$BPI_ROOT/tests/validators/storm.py" --programs "$CARGO_TARGET_DIR/ci" "$@"
}

# validators_anchor: a receipt becomes evidence that is checked offline.
validators_anchor() {
  validators_build
  (cd "$BPI_ROOT" && step "build docklock and what signs a receipt, profile ci" cargo build --locked --profile ci -p docklock -p bpi-conformance --bin docklock --bin receipts-fixture)
  local programs="$CARGO_TARGET_DIR/ci"
  python3 "$BPI_ROOT/tests/validators/anchor.py" --programs "$programs" --docklock "$programs/docklock" --fixture "$programs/receipts-fixture"
}

validators_bench() { # what tests/validators/bench.py takes
  packages_need "to test" "${TEST_PACKAGES[@]}"
  validators_build
  python3 "$BPI_ROOT/tests/validators/bench.py" --programs "$CARGO_TARGET_DIR/ci" "$@"
}
