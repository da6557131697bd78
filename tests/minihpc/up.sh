#!/bin/bash
# up.sh: build the little cluster, replacing one that is already up in this MINIHPC_STATE.
# Changes nothing on the machine itself; `install` brings what it needs.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib.sh"
export MINIHPC_T0
. "$MINIHPC_HOME/conf.sh"
umask 022

"$MINIHPC_HOME/down.sh"
mkdir -p "$MINIHPC_STATE/hosts"; chmod 700 "$MINIHPC_STATE"    # the hosts see each other only through their mounts
: >"$MINIHPC_STATE/.minihpc"
trap 'rc=$?; [ $rc = 0 ] || { echo "minihpc: up.sh failed, taking down" >&2; "$MINIHPC_HOME/down.sh"; }' EXIT

# --- files -------------------------------------------------------------------
conf_keys
conf_homes
mkdir -p "$MINIHPC_STATE/srv/bin"
for h in $HOSTS; do conf_host "$h" & bg+=($!); done
all
[ "$MINIHPC_BATCH" != sge ] || conf_sge_root
note "files written"

# --- hosts: one init each, in its own net, uts, mount, ipc and pid namespaces --
for h in $HOSTS; do
    side=cluster; [ "$h" != laptop ] || side=laptop
    d=$(host_dir "$h")
    # whoever starts tests in the background has SIGINT ignored: no host may inherit that
    setsid env --default-signal unshare --net --uts --mount --ipc --pid --fork --kill-child \
        "$MINIHPC_HOME/host-init.sh" "$h" "$d" "home-$side" "${ETC_AS_IT_IS[*]}" </dev/null >"$d/init.log" 2>&1 &
done
for h in $HOSTS; do
    d=$(host_dir "$h")
    wait_for 10 test -s "$d/pid.new" || { cat "$d/init.log" >&2; die "host $h did not start"; }
    mv "$d/pid.new" "$d/pid"
done
note "hosts up: $HOSTS"

# --- network: laptop -- login (bridge) -- nodes. No packet is forwarded. -------
L=$(host_pid login)
ip link add ext0 netns "$L" type veth peer name eth0 netns "$(host_pid laptop)"
in_host laptop ip -batch - <<IP
addr add $NET.0.100/24 dev eth0
link set eth0 up
IP
plug() { # NODE INTERFACE PORT NET: a cable from the node to a switch that stands in login
    ip link add "$3" netns "$L" type veth peer name "$2" netns "$(host_pid "$1")"
    in_host "$1" ip -batch - <<IP
addr add $(node_addr "$1" "$4")/24 dev $2
link set $2 up
IP
}
for n in $MINIHPC_NODES; do plug "$n" eth0 "p-$n" $NET; done
for n in $MINIHPC_SECOND_NET; do plug "$n" eth1 "q-$n" $SECOND_NET; done
{
    echo "link add int0 type bridge"
    echo "link add int1 type bridge"
    for n in $MINIHPC_NODES; do echo "link set p-$n master int0 up"; done
    for n in $MINIHPC_SECOND_NET; do echo "link set q-$n master int1 up"; done
    printf 'addr add %s dev ext0\n' "$NET".0.{1,2,3}/24
    echo "addr add $NET.1.1/24 dev int0"
    printf 'link set %s up\n' ext0 int0 int1
} | in_host login ip -batch -
# From outside, only port 22 of the login node answers; the rest is silence.
in_host login nft -f - <<'NFT'
table inet minihpc {
  chain input {
    type filter hook input priority 0; policy accept;
    iifname "ext0" ct state established,related accept
    iifname "ext0" ip protocol icmp accept
    iifname "ext0" tcp dport 22 accept
    iifname "ext0" drop
  }
}
NFT
note "network up"

# --- daemons -----------------------------------------------------------------
svc() { "$MINIHPC_HOME/svc.sh" "$@"; }
for s in sshd sshd-2fa sshd-mfa; do svc login start $s & bg+=($!); done
for n in $MINIHPC_NODES; do svc "$n" start sshd & bg+=($!); done
if [ "$MINIHPC_BATCH" = slurm ]; then
    for h in login $MINIHPC_NODES; do svc "$h" start munged & bg+=($!); done
    in_host "$SLURM_GPU_NODE" sh -c 'for i in 0 1; do mknod -m 666 /run/fakegpu$i c 1 3; done'
fi
all; note "sshd, munged up"
if [ "$MINIHPC_BATCH" = slurm ]; then
    in_host login sh -c 'touch /var/log/slurm/jobcomp.log; chown slurm: /var/log/slurm/jobcomp.log'
    svc login start slurmctld & bg+=($!)
    for n in $MINIHPC_NODES; do svc "$n" start slurmd & bg+=($!); done
    all; note "slurm daemons started"
    idle() { [ "$(in_host login sinfo -h -p regular -t idle -o %D)" = "$(wc -w <<<"$MINIHPC_NODES")" ]; }
    wait_for 30 idle || { in_host login sinfo -R >&2; die "nodes do not become idle"; }
fi
if [ "$MINIHPC_BATCH" = sge ]; then "$MINIHPC_HOME/sge.sh"; fi
note "ready"
