# Building. Tests use profile ci (optimised, no link-time optimisation), everything a user keeps uses release.

build_need_toolchain() {
  local cargo_home="${CARGO_HOME:-$HOME/.cargo}"
  command -v cargo >/dev/null || export PATH="$cargo_home/bin:$PATH"
  command -v cargo >/dev/null ||
    die "no cargo found; install Rust $(toolchain_wanted) by rustup, or Debian's rustup package, and run this again"
  # The pinned toolchain may be absent where the same compiler is installed under another name, as "stable".
  if command -v rustup >/dev/null && ! rustup run "$(toolchain_wanted)" rustc --version >/dev/null 2>&1; then
    if [ "$(rustup run stable rustc --version 2>/dev/null | cut -d' ' -f2)" = "$(toolchain_wanted)" ]; then
      export RUSTUP_TOOLCHAIN=stable
    fi
  fi
}

toolchain_wanted() { sed -n 's/^channel = "\(.*\)"$/\1/p' "$BPI_ROOT/rust-toolchain.toml"; }

# build PROFILE: shim and CLI
build() {
  local profile="$1"
  packages_need "to build" "${BUILD_PACKAGES[@]}"
  build_need_toolchain
  cd "$BPI_ROOT"
  step "build DockLock, profile $profile (the first time takes minutes)" \
    cargo build --locked --profile "$profile" -p docklock -p containerd-shim-bpi-docklock
}

# build_all PROFILE: what a mesh on one machine consists of
build_all() {
  local profile="$1"
  packages_need "to build" "${BUILD_PACKAGES[@]}"
  build_need_toolchain
  cd "$BPI_ROOT"
  # One library for all profiles: headers are few and small, and compiling it is most of the time.
  rocksdb_ready ci
  step "build DockLock and the mesh, profile $profile (the first time takes some 15 minutes)" \
    cargo build --locked --profile "$profile" -p docklock -p containerd-shim-bpi-docklock -p bpi-identity -p bpi-relay -p bpi-validator -p bpi-pinner -p bpi-agent \
    --features bpi-identity/devnet
}
