# Where things are. Nothing of ours is written into the clone.

: "${HOME:=/root}"
BPI_CACHE="${BPI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bpi}"
BPI_HOME="${BPI_HOME:-$HOME/.local/share/bpi}"
BPI_RUN="${BPI_RUN:-/run/bpi}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$BPI_CACHE/target}"

SOCKET_BYTES_MAX=107 # sockaddr_un holds 108 with the final zero

need_root() {
  [ "$(id -u)" = 0 ] || die "$1 starts containers and mounts file systems and so needs root; run: sudo -E scripts/bpi $1"
}

need_short_socket() {
  local path="$1"
  [ "${#path}" -le "$SOCKET_BYTES_MAX" ] ||
    die "the socket path $path is ${#path} bytes long and the limit is $SOCKET_BYTES_MAX; set BPI_RUN to a shorter folder"
}
