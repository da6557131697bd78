#!/bin/bash
# sge.sh: Grid Engine master on login, execution daemons on the nodes (called by
# up.sh, MINIHPC_BATCH=sge).  Queues: all.q, debug.q (h_rt 5 min); PEs smp, mpi.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib.sh"
log=$(host_dir login)/log/sge-setup.log
sge() { in_host login env SGE_ROOT=/var/lib/gridengine SGE_CELL=default "$@"; }
sge setpriv --reuid sgeadmin --regid sgeadmin --clear-groups \
    /usr/share/gridengine/scripts/init_cluster /var/lib/gridengine default \
    /var/spool/gridengine/spooldb sgeadmin >"$log" 2>&1 || { cat "$log" >&2; die "init_cluster failed"; }
"$MINIHPC_HOME/svc.sh" login start sge_qmaster
answers() { sge qconf -sh; }
wait_for 20 answers || die "sge_qmaster does not answer"
note "qmaster answers"
q() { sge qconf "$@" >>"$log" 2>&1 || { tail -n 3 "$log" >&2; die "qconf $* failed"; }; }
f=$(host_dir login)/tmp/q            # /tmp/q inside
q -as login
for n in $MINIHPC_NODES; do
    q -ah "$n"
    printf 'hostname %s\nload_scaling NONE\ncomplex_values slots=%s\nuser_lists NONE\nxuser_lists NONE\nprojects NONE\nxprojects NONE\nusage_scaling NONE\nreport_variables NONE\n' "$n" "$CPUS" >"$f"
    q -Ae /tmp/q
done
printf 'group_name @allhosts\nhostlist %s\n' "$MINIHPC_NODES" >"$f"; q -Ahgrp /tmp/q
for pe in 'smp $pe_slots' 'mpi $round_robin'; do
    set -- $pe
    printf 'pe_name %s\nslots 999\nuser_lists NONE\nxuser_lists NONE\nstart_proc_args NONE\nstop_proc_args NONE\nallocation_rule %s\ncontrol_slaves TRUE\njob_is_first_task TRUE\nurgency_slots min\naccounting_summary FALSE\nqsort_args NONE\n' "$1" "$2" >"$f"
    q -Ap /tmp/q
done
sge qconf -sq >"$f.queue"            # the built-in template
queue() { # NAME HOSTLIST H_RT
    sed -E -e "s/^qname .*/qname $1/" -e "s/^hostlist .*/hostlist $2/" -e "s/^slots .*/slots $CPUS/" \
        -e "s/^pe_list .*/pe_list smp mpi/" -e "s/^h_rt .*/h_rt $3/" -e 's/^shell .*/shell \/bin\/bash/' \
        -e 's/^shell_start_mode .*/shell_start_mode unix_behavior/' -e 's/^load_thresholds .*/load_thresholds NONE/' \
        -e 's/^notify .*/notify 00:00:05/' "$f.queue" >"$f"
    q -Aq /tmp/q
}
queue all.q @allhosts INFINITY
queue debug.q "${MINIHPC_NODES%% *}" 00:05:00
# react at once; any user may submit
sge qconf -ssconf | sed -E -e 's/^schedule_interval .*/schedule_interval 0:0:1/' \
    -e 's/^flush_submit_sec .*/flush_submit_sec 1/' -e 's/^flush_finish_sec .*/flush_finish_sec 1/' \
    -e 's/^(schedd_job_info) .*/\1 true/' >"$f"; q -Msconf /tmp/q
sge qconf -sconf global | sed -E -e '/^#/d' -e 's/^enforce_user .*/enforce_user auto/' -e 's/^load_report_time .*/load_report_time 00:00:02/' \
    -e 's/^max_unheard .*/max_unheard 00:00:20/' \
    -e 's/^reporting_params .*/reporting_params accounting=true reporting=false flush_time=00:00:01 accounting_flush_time=00:00:00 joblog=false sharelog=00:00:00/' >"$(host_dir login)/tmp/global"; q -Mconf /tmp/global
for n in $MINIHPC_NODES; do "$MINIHPC_HOME/svc.sh" "$n" start sge_execd & bg+=($!); done
all || die "an execution daemon did not start"
note "execution daemons started"
ready() { [ "$(sge qstat -f | grep -c 'all.q@.* lx-amd64 *$')" = "$(wc -w <<<"$MINIHPC_NODES")" ]; }
wait_for 30 ready || { sge qstat -f >&2; die "execution hosts do not come up"; }
note "grid engine up"
