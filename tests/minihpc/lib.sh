# Shared by up.sh, down.sh, exec.sh, svc.sh and sge.sh. Sourced, never run.
# shellcheck shell=bash disable=SC2034

MINIHPC_HOME=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)

# Everything the cluster writes lives here; clusters with different folders can run side by side
# (no global names, no addresses in the machine's own network).
MINIHPC_STATE=${MINIHPC_STATE:-/var/lib/minihpc}
MINIHPC_NODES=${MINIHPC_NODES:-"node1 node2 node3"}
MINIHPC_BATCH=${MINIHPC_BATCH:-slurm}       # slurm | sge | none
MINIHPC_SECOND_NET=${MINIHPC_SECOND_NET:-}  # the nodes that also have an eth1, 10.78.1.x
MINIHPC_PATH=${MINIHPC_PATH:-}              # folders that login shells have first on PATH
MINIHPC_LAPTOP_PATH=${MINIHPC_LAPTOP_PATH:-} # the same on the laptop
MINIHPC_OVERLAY=${MINIHPC_OVERLAY:-}        # folders of unpacked packages, laid over /usr inside the hosts
MINIHPC_SLURM_EXTRA=${MINIHPC_SLURM_EXTRA:-} # more lines for slurm.conf
export MINIHPC_BATCH MINIHPC_OVERLAY

NET=10.77 SECOND_NET=10.78
CPUS=16 MEMORY_MIB=64000                    # what each node claims to have
CLUSTER_USERS="ada:4001 bob:4002"
HOSTS="laptop login $MINIHPC_NODES"
# most of the files in /etc, which no host changes: lent, as copying them would take longer than all else
ETC_AS_IT_IS=(alternatives ssl fonts)

die()  { printf 'minihpc: %s\n' "$*" >&2; exit 1; }
note() { printf '[%6.2fs] %s\n' "$(elapsed)" "$*" >&2; }
elapsed() { local now=${EPOCHREALTIME/[,.]/}; local d=$((now - MINIHPC_T0)); printf '%d.%06d' $((d / 1000000)) $((d % 1000000)); }
MINIHPC_T0=${MINIHPC_T0:-${EPOCHREALTIME/[,.]/}}

host_dir() { printf '%s/hosts/%s' "$MINIHPC_STATE" "$1"; }

# Pid (in the caller's pid namespace) of a host's init, or fail. Its start time is compared too, so that
# a recycled pid is never mistaken for one of ours.
host_pid() {
    local f pid start
    f=$(host_dir "$1")/pid
    [ -s "$f" ] || return 1
    read -r pid start <"$f"
    [ "$(proc_start "$pid")" = "$start" ] || return 1
    printf '%s' "$pid"
}
proc_start() { # field 22 of /proc/PID/stat; the name (field 2) may hold blanks
    local s; { s=$(<"/proc/$1/stat"); } 2>/dev/null || return 0
    s=${s##*) }; set -- $s; printf '%s' "${20}"
}

# in_host HOST CMD...: as root inside that host, with its own clean environment and no signal ignored.
in_host() {
    local h=$1 pid; shift
    pid=$(host_pid "$h") || die "host '$h' is not up"
    nsenter -t "$pid" -m -u -i -n -p -r -w -- \
        env --default-signal -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root USER=root LOGNAME=root LANG=C.UTF-8 TERM="${TERM:-dumb}" "$@"
}

# wait_for SECONDS CMD...: poll every 20 ms until CMD succeeds.
wait_for() {
    local end=$(( ${EPOCHREALTIME/[,.]/} + $1 * 1000000 )); shift
    until "$@" >/dev/null 2>&1; do
        [ "${EPOCHREALTIME/[,.]/}" -lt "$end" ] || return 1
        sleep 0.02
    done
}

# all: wait for the jobs of ${bg[@]}, which run side by side; fail if one did.
bg=()
all() {
    local p rc=0
    for p in "${bg[@]}"; do wait "$p" || rc=1; done
    bg=()
    return $rc
}

node_addr() { # node1 [NET] -> 10.77.1.11
    local i=11 n
    for n in $MINIHPC_NODES; do
        [ "$n" != "$1" ] || { printf '%s.1.%d' "${2:-$NET}" "$i"; return; }
        i=$((i + 1))
    done
    return 1
}
