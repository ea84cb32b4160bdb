# Words to the person at the terminal.

say() { printf '%s\n' "$*"; }
changed() { printf 'changed: %s\n' "$*"; }
die() {
  printf 'bpi: %s\n' "$*" >&2
  exit 1
}

# step TITLE COMMAND…  runs a command that may take long: its output goes to a log, a line each 15 s says that it lives and
# what it is doing, and on failure the end of the log is shown.
step() {
  local title="$1" log started pid ticked=0 rc=0
  shift
  mkdir -p "$BPI_CACHE/log"
  log="$BPI_CACHE/log/$(printf '%s' "$title" | tr -c 'A-Za-z0-9' '-').log"
  started=$SECONDS
  printf '…  %s\n' "$title"
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    if [ $((SECONDS - started)) -ge $((ticked + 15)) ]; then
      ticked=$((SECONDS - started))
      printf '   %4d s  %s\n' "$ticked" "$(tail -c 400 "$log" | tr '\r' '\n' | grep -v '^[[:space:]]*$' | tail -n 1 | cut -c1-110)"
    fi
  done
  wait "$pid" || rc=$?
  if [ "$rc" -ne 0 ]; then
    tail -n 60 "$log" >&2
    printf '✗  %s failed with %d after %d s; all of it: %s\n' "$title" "$rc" "$((SECONDS - started))" "$log" >&2
    return "$rc"
  fi
  printf '✓  %s (%d s)\n' "$title" "$((SECONDS - started))"
}
