#!/bin/bash
# Process 1 of one 'host'. Started by up.sh as
#   unshare --net --uts --mount --ipc --pid --fork host-init.sh NAME DIR HOME 'FOLDERS OF /etc AS THEY ARE'
# It gives the host its private view of the file system, says so, and then only reaps orphans.
# Killing it kills everything that runs on that host.
set -euo pipefail
name=$1 dir=$2 home=$3 lent=$4

# /proc still belongs to the parent's pid namespace: this is our outside pid.
stat=$(</proc/self/stat); pid=${stat%% *}
stat=${stat##*) }; set -- $stat; start=${20}

hostname "$name"
# Unpacked packages laid over /usr: those that should not, or cannot, be installed beside others.
for o in ${MINIHPC_OVERLAY:-}; do
    mount -t overlay -o "lowerdir=$o/usr:/usr" overlay /usr
done
# All from here on is named from within the state folder (-c: left so), which itself may lie below what gets covered.
cd "$dir"
exec 3>pid.new
mount -t proc -o nosuid,nodev,noexec proc /proc
bind() { mount -c --bind "$1" "$2"; }
for d in $lent; do [ ! -d "/etc/$d" ] || mount -c --bind "/etc/$d" "etc/$d"; done
mount -c --rbind etc /etc
bind log /var/log
bind spool /var/spool
bind "../../$home" /home
bind ../../srv /srv
[ "${MINIHPC_BATCH:-}" != sge ] || [ "$name" = laptop ] || bind ../../sge /var/lib/gridengine
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm
mount -t devpts -o newinstance,mode=620,gid=5,ptmxmode=666 devpts /dev/pts
mount --bind /dev/pts/ptmx /dev/ptmx
bind tmp /tmp
mkdir /run/sshd /run/lock
[ "${MINIHPC_BATCH:-}" != slurm ] || install -d -o munge -g munge -m 755 /run/munge
ip link set lo up
cd /
echo "$pid $start" >&3; exec 3>&-

trap 'exit 0' TERM INT
while :; do sleep 1000000 & wait $! || true; done   # bash reaps adopted children
