#!/bin/bash
# exec.sh HOST [--user NAME] [--dir DIR] [--env K=V]... [--login] [--] CMD...
# Runs CMD on that 'host' (laptop, login, node1, ...), as root unless --user is given; stdin, stdout, stderr and the
# exit status are CMD's. The environment is a fresh one, not the caller's; --login goes through a login shell.
# Whoever ends exec.sh ends CMD with SIGTERM; a terminal's Ctrl-C reaches CMD alone.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib.sh"
[ $# -ge 2 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
host=$1; shift
user=root dir='' login='' envs=()
while [ $# -gt 0 ]; do
    case $1 in
        --user)  user=$2; shift 2 ;;
        --dir)   dir=$2; shift 2 ;;
        --env)   envs+=("$2"); shift 2 ;;
        --login) login=1; shift ;;
        --)      shift; break ;;
        *)       break ;;
    esac
done
[ $# -ge 1 ] || die "exec.sh: no command"
pid=$(host_pid "$host") || die "host '$host' is not up"
home=/root; [ "$user" = root ] || home=/home/$user
clean=(env --default-signal -i "PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
       "HOME=$home" "USER=$user" "LOGNAME=$user" SHELL=/bin/bash LANG=C.UTF-8
       "TERM=${TERM:-dumb}" "${envs[@]}")
cmd=("$@")
[ -z "$login" ] || cmd=(bash -lc 'exec "$@"' bash "$@")
cmd=(bash -c 'cd "$1" && shift && exec "$@"' bash "${dir:-$home}" "${cmd[@]}")
become=(setpriv --pdeathsig TERM)
[ "$user" = root ] || become+=(--reuid "$user" --regid "$user" --init-groups)
trap '' INT QUIT        # for nsenter, which only stands between: CMD has its signals back
# -r/-w: root and cwd of that host, so that its private /home, /etc, /tmp show.
exec nsenter -t "$pid" -m -u -i -n -p -r -w -- "${become[@]}" "${clean[@]}" "${cmd[@]}"
