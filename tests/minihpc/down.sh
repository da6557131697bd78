#!/bin/bash
# down.sh [--purge]: stop every 'host' of this cluster. Safe to run at any time, any number of times.
# --purge also deletes the state folder.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib.sh"
[ -e "$MINIHPC_STATE/.minihpc" ] || exit 0      # never up, or not ours
pids=()
for d in "$MINIHPC_STATE"/hosts/*/; do
    [ -d "$d" ] || continue
    h=$(basename "$d")
    if pid=$(host_pid "$h"); then kill -KILL "$pid" 2>/dev/null || true; pids+=("$pid"); fi
    rm -f "$d/pid" "$d/pid.new"
done
# Init's death is the death of its whole pid namespace; wait until it is gone.
for pid in "${pids[@]}"; do
    wait_for 10 test ! -e "/proc/$pid" || die "pid $pid does not go away"
done
[ "${1:-}" != --purge ] || rm -rf --one-file-system "$MINIHPC_STATE"
note "down"
