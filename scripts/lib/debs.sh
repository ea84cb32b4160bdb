# Debian packages: built natively and in the cage, each time on another host, and compared bit for bit.

DEBS_PACKAGES=(mmdebstrap dpkg-dev python3)

debs_run() { # debs_run [--only NAME…] [--runs N] [--find NAME…] …: what twice.py takes
  need_root "packages"
  packages_need "to make a Debian root and unpack sources" "${DEBS_PACKAGES[@]}"
  if [ -z "${DOCKLOCK:-}" ]; then
    packages_need "to build" "${BUILD_PACKAGES[@]}"
    build_need_toolchain
    (cd "$BPI_ROOT" && step "build shim and CLI, profile ci" cargo build --locked --profile ci -p docklock -p containerd-shim-bpi-docklock)
    DOCKLOCK="$CARGO_TARGET_DIR/ci/docklock"
  fi
  mkdir -p "$BPI_CACHE/log"
  env DOCKLOCK="$DOCKLOCK" BPI_CACHE="$BPI_CACHE" python3 "$BPI_ROOT/tests/conformance/packages/twice.py" --json "$BPI_CACHE/log/packages.json" "$@"
}
