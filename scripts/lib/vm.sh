# The Debian virtual machine: AppArmor, pure cgroup v2, systemd. Software emulation, no KVM needed.

vm_test() {
  local missing
  if ! packages_need "for the virtual machine" "${VM_PACKAGES[@]}" e2fsprogs; then
    missing="$(packages_missing "${VM_PACKAGES[@]}" | tr '\n' ' ')"
    say "skipped: the virtual machine, because ${missing:-a package} cannot be installed here"
    return 0
  fi
  if ! step "build the Debian machine (once; kept in $BPI_CACHE/vm)" "$BPI_ROOT/tests/system/vm/build" "$BPI_CACHE/vm"; then
    say "skipped: the virtual machine, because it cannot be built here; see $BPI_CACHE/log"
    return 0
  fi
  "$BPI_ROOT/tests/system/vm/run" "$CARGO_TARGET_DIR/ci" "$BPI_CACHE"
}
