# Debian packages: only the missing ones are installed, and which is said.

BUILD_PACKAGES=(gcc g++ libc6-dev libclang-dev pkg-config libseccomp-dev protobuf-compiler)
RUN_PACKAGES=(containerd runc busybox-static curl iproute2 mount util-linux)
TEST_PACKAGES=(containernetworking-plugins python3 python3-venv openssl)
VM_PACKAGES=(mmdebstrap qemu-system-x86 qemu-utils)

package_is_here() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

packages_missing() {
  local package
  for package in "$@"; do
    package_is_here "$package" || printf '%s\n' "$package"
  done
}

apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120 "$@"
}

# packages_need PURPOSE PACKAGE…
packages_need() {
  local purpose="$1" missing
  shift
  missing="$(packages_missing "$@" | tr '\n' ' ')"
  [ -n "$missing" ] || return 0
  command -v apt-get >/dev/null ||
    die "this machine lacks $missing and has no apt-get; install them by hand ($purpose)"
  [ "$(id -u)" = 0 ] || die "installing $missing needs root ($purpose); run: sudo -E scripts/bpi …"
  # shellcheck disable=SC2086
  step "install ${missing% } ($purpose)" apt_install $missing
  changed "Debian packages installed: ${missing% }"
}

# newer_package NAME FOLDER  unpacks the newest version of a Debian package beside the system's, without installing it.
# The mirror is the one that this machine's own apt uses; the newer suites are read through a private apt configuration.
newer_package() {
  local name="$1" target="$2" apt="$BPI_CACHE/apt" mirror suite keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -f "$target/.unpacked" ] && return 0
  mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -v -e security -e updates | head -n 1)"
  if [ -z "$mirror" ]; then
    apt-get update -qq
    mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v -e security -e updates | head -n 1)"
  fi
  [ -n "$mirror" ] || { echo "this machine's apt names no Debian mirror"; return 1; }
  rm -rf "$apt" && mkdir -p "$apt"/{state/lists/partial,cache/archives/partial,etc,deb}
  for suite in sid forky trixie; do
    printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$mirror" "$suite"
  done >"$apt/etc/sources.list"
  cat >"$apt/apt.conf" <<CONF
Dir::State "$apt/state";
Dir::Cache "$apt/cache";
Dir::Etc::SourceList "$apt/etc/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
APT::Sandbox::User "root";
CONF
  (
    export APT_CONFIG="$apt/apt.conf"
    apt-get update -qq || true # one suite may be absent from a mirror; the download below tells
    cd "$apt/deb" && apt-get download -q "$name"
  ) || return 1
  rm -rf "$target" && mkdir -p "$target"
  dpkg -x "$apt/deb/${name}"_*.deb "$target" && touch "$target/.unpacked"
  rm -rf "$apt"
}
