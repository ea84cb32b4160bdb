# `bench`: numbers, not a verdict.

bench_run() {
  need_root bench
  packages_need "to run containers" "${RUN_PACKAGES[@]}"
  build release
  demo_image >/dev/null
  exec python3 "$BPI_ROOT/scripts/lib/bench.py" --programs "$CARGO_TARGET_DIR/release" --image "$BPI_CACHE/demo.tar" "$@"
}
