# Relays with other programs and in network namespaces: tests/relays.

RELAYS_PACKAGES=(iproute2 nftables tshark)

relays_build() {
  validators_build
  (cd "$BPI_ROOT" && step "build what probes relays, profile ci" cargo build --locked --profile ci -p bpi-wire --bins &&
    step "build the proxy's examples, profile ci" cargo build --locked --profile ci -p bpi-masque --examples)
}

# relays_python: a Python with tests/relays/requirements.txt, made once for each of its versions; its path is left in $RELAYS_PYTHON.
relays_python() {
  local wanted="$BPI_ROOT/tests/relays/requirements.txt" folder="$BPI_CACHE/python-relays"
  RELAYS_PYTHON="$folder/bin/python"
  if ! cmp -s "$wanted" "$folder/made-from"; then
    rm -rf "$folder"
    step "install aioquic and curl from PyPI" relays_install "$wanted" "$folder" || return
  fi
}

relays_install() {
  python3 -m venv "$2" && "$2/bin/pip" install --quiet -r "$1" && cp "$1" "$2/made-from"
}

# relays_strangers: HTTP/3 programs of others against the relay, and against proxy and client alone.
relays_strangers() {
  relays_build && relays_python || return
  local rc=0
  "$RELAYS_PYTHON" "$BPI_ROOT/tests/relays/masque/interop.py" --binaries "$CARGO_TARGET_DIR/ci/examples" || rc=$?
  "$RELAYS_PYTHON" "$BPI_ROOT/tests/relays/strangers.py" --programs "$CARGO_TARGET_DIR/ci" || rc=$?
  return "$rc"
}

relays_namespaces() { # what tests/relays/netns.py takes
  packages_need "to test" "${TEST_PACKAGES[@]}" "${RELAYS_PACKAGES[@]}"
  relays_build || return
  python3 "$BPI_ROOT/tests/relays/netns.py" --programs "$CARGO_TARGET_DIR/ci" "$@"
}

relays_bench() {
  packages_need "to build" "${BUILD_PACKAGES[@]}"
  build_need_toolchain
  (cd "$BPI_ROOT" && ulimit -n "$(ulimit -Hn)" && cargo bench --locked --profile ci -p bpi-relay --bench bpci -- "$@")
}
