# `bench`: numbers, not a verdict.

bench_run() {
  if [ "${1:-}" = validators ]; then
    shift
    validators_bench "$@"
    return
  fi
  if [ "${1:-}" = bpci ]; then
    shift
    relays_bench "$@"
    return
  fi
  if [ "${1:-}" = mesh ]; then
    shift
    mesh_bench bench "$@"
    return
  fi
  if [ "${1:-}" = backlog ]; then
    shift
    mesh_bench backlog "$@"
    return
  fi
  need_root bench
  if [ "${1:-}" = cage ]; then
    shift
    bench_cage "$@"
    return
  fi
  packages_need "to run containers" "${RUN_PACKAGES[@]}"
  build release
  demo_image >/dev/null
  exec python3 "$BPI_ROOT/scripts/lib/bench.py" --programs "$CARGO_TARGET_DIR/release" --image "$BPI_CACHE/demo.tar" "$@"
}

# bench_cage [--from FOLDER] …: programs natively and caged, over the conformance suite's root file system
bench_cage() {
  local programs="$CARGO_TARGET_DIR/release" root="$BPI_CACHE/conformance-root"
  packages_need "to make and run the programs" gcc libc6-dev mount util-linux mmdebstrap runc python3
  if [ "${1:-}" = --from ]; then
    programs="${2:?--from wants a folder with docklock}"
    shift 2
  else
    build release
  fi
  step "make a Debian root file system (the first time takes minutes)" "$BPI_ROOT/tests/conformance/cage/rootfs" "$root"
  exec python3 "$BPI_ROOT/scripts/lib/bench_cage.py" --programs "$programs" --root "$root" "$@"
}
