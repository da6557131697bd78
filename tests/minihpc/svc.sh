#!/bin/bash
# svc.sh HOST start|stop|kill|restart|status SERVICE
# SERVICE: munged sshd sshd-2fa sshd-mfa slurmctld slurmd sge_qmaster sge_execd.
# stop is SIGTERM, kill is SIGKILL; both return when the process is gone.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib.sh"
[ $# = 3 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
host=$1 verb=$2 svc=$3
case $svc in
    munged)    pidfile=/run/munge/munged.pid
               cmd=(setpriv --reuid munge --regid munge --clear-groups munged --pid-file=/run/munge/munged.pid
                    --socket=/run/munge/munge.socket.2 --seed-file=/run/munge/seed --log-file=/run/munge/munged.log
                    --key-file=/etc/munge/munge.key) ;;
    sshd)      pidfile=/run/sshd.pid;     cmd=(/usr/sbin/sshd -E /var/log/sshd.log) ;;
    sshd-*)    pidfile=/run/$svc.pid;     cmd=("/etc/minihpc/$svc" -E "/var/log/$svc.log" -f "/etc/ssh/sshd_config.${svc#sshd-}") ;;
    slurmctld) pidfile=/run/slurmctld.pid; cmd=(slurmctld) ;;
    slurmd)    pidfile=/run/slurmd.pid;   cmd=(slurmd) ;;
    sge_qmaster) pidfile=/var/spool/gridengine/qmaster/qmaster.pid
               cmd=(env SGE_ROOT=/var/lib/gridengine SGE_CELL=default sge_qmaster) ;;
    sge_execd) pidfile=/var/spool/gridengine/execd/$host/execd.pid
               cmd=(env SGE_ROOT=/var/lib/gridengine SGE_CELL=default sge_execd) ;;
    *) die "unknown service '$svc'" ;;
esac
alive() { in_host "$host" bash -c 'p=$(cat "$1" 2>/dev/null) && [ -n "$p" ] && kill -0 "$p" 2>/dev/null' _ "$pidfile"; }
gone()  { ! alive; }
start() {
    alive && return
    in_host "$host" rm -f "$pidfile"
    in_host "$host" "${cmd[@]}" </dev/null >>"$(host_dir "$host")/log/start-$svc.log" 2>&1 ||
        { tail -n 5 "$(host_dir "$host")/log/start-$svc.log" >&2; die "$svc on $host did not start"; }
    wait_for 10 alive || die "$svc on $host did not come up"
}
halt() { # SIGNAL
    alive || return 0
    in_host "$host" bash -c 'kill "-$1" "$(cat "$2")"' _ "$1" "$pidfile"
    wait_for 30 gone || die "$svc on $host does not stop"
    in_host "$host" rm -f "$pidfile"
}
case $verb in
    start)   start ;;
    stop)    halt TERM ;;
    kill)    halt KILL ;;
    restart) halt TERM; start ;;
    status)  if alive; then echo running; else echo stopped; exit 3; fi ;;
    *) die "unknown verb '$verb'" ;;
esac
