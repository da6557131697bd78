# Writes the configuration files of every host.  Sourced by up.sh.
# shellcheck shell=bash

PASSWORD=correct-horse            # of every cluster user (login-2fa)
TOTP_SECRET=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP   # base32: oathtool --totp -b SECRET
SCRATCH_CODE=12345678             # google-authenticator one-time fallback code

conf_host() { # HOST
    conf_etc "$1"
    [ "$1" != laptop ] || return 0
    conf_sshd "$1"
    case $MINIHPC_BATCH in slurm) conf_slurm "$1" ;; sge) conf_sge "$1" ;; esac
}

conf_etc() { # HOST: a private copy of /etc, with its own names and users
    local h=$1 d etc u id hash n path=$MINIHPC_PATH
    d=$(host_dir "$h"); etc=$d/etc
    rm -rf "$d"; mkdir -p "$d"/{log/slurm,spool/slurmctld,spool/slurmd,tmp}
    chmod 1777 "$d/tmp"; chmod 755 "$d" "$d"/{log,spool}
    [ "$MINIHPC_BATCH" != slurm ] || chown slurm: "$d/spool/slurmctld" "$d/log/slurm"
    mkdir "$etc"
    tar -C /etc "${ETC_AS_IT_IS[@]/#/--exclude=./}" -c . | tar -C "$etc" -xp
    for n in "${ETC_AS_IT_IS[@]}"; do mkdir -p "$etc/$n"; done
    printf '%s\n' "$h" >"$etc/hostname"
    {
        printf '127.0.0.1 localhost\n'
        if [ "$h" = laptop ]; then
            printf '%s laptop\n' "$NET.0.100"
            printf '%s login.minihpc.test login\n' "$NET.0.1"
            printf '%s login-2fa.minihpc.test login-2fa\n' "$NET.0.2"
            printf '%s login-mfa.minihpc.test login-mfa\n' "$NET.0.3"
        else
            printf '%s login.minihpc.test login\n' "$NET.1.1"
            for n in $MINIHPC_NODES; do
                printf '%s %s.minihpc.test %s\n' "$(node_addr "$n")" "$n" "$n"
            done
        fi
    } >"$etc/hosts"
    rm -f "$etc/resolv.conf"; : >"$etc/resolv.conf"
    sed -i 's/^hosts:.*/hosts: files/' "$etc/nsswitch.conf"     # no DNS time-outs
    rm -f "$etc/nologin"
    [ "$h" != laptop ] || path=$MINIHPC_LAPTOP_PATH
    # what a test puts into /srv/bin comes before all else
    printf 'PATH=%s:$PATH\n' "/srv/bin${path:+:$path}" >"$etc/profile.d/minihpc.sh"
    hash=$(perl -e 'print crypt($ARGV[0], "\$6\$minihpc\$")' "$PASSWORD")
    for u in $CLUSTER_USERS; do
        id=${u#*:} u=${u%:*}
        sed -i "/^$u:/d" "$etc/passwd" "$etc/group" "$etc/shadow"
        printf '%s:x:%s:%s:%s:/home/%s:/bin/bash\n' "$u" "$id" "$id" "$u" "$u" >>"$etc/passwd"
        printf '%s:x:%s:\n' "$u" "$id" >>"$etc/group"
        printf '%s:%s:19000:0:99999:7:::\n' "$u" "$hash" >>"$etc/shadow"
    done
    if [ "$h" = laptop ]; then rm -rf "$etc/slurm" "$etc/munge" "$etc/slurm-llnl"; fi
}

conf_homes() {
    local u id home side
    for side in laptop cluster; do
        for u in $CLUSTER_USERS; do
            id=${u#*:} u=${u%:*} home=$MINIHPC_STATE/home-$side/$u
            rm -rf "$home"; mkdir -p "$MINIHPC_STATE/home-$side"
            cp -a /etc/skel "$home"; mkdir "$home/.ssh"; chmod 755 "$home"; chmod 700 "$home/.ssh"
            cp "$MINIHPC_STATE/keys/$side-$u" "$home/.ssh/id_ed25519"
            cp "$MINIHPC_STATE/keys/$side-$u.pub" "$home/.ssh/id_ed25519.pub"
            if [ "$side" = cluster ]; then
                cat "$MINIHPC_STATE/keys/laptop-$u.pub" "$MINIHPC_STATE/keys/cluster-$u.pub" >"$home/.ssh/authorized_keys"
                cp "$MINIHPC_STATE/keys/known_hosts.cluster" "$home/.ssh/known_hosts"
                # bob's shell start-up files talk on stdout, as many users' do
                [ "$u" != bob ] || sed -i '1i echo "Welcome back, bob (from .bashrc)"' "$home/.bashrc"
            else
                cp "$MINIHPC_STATE/keys/known_hosts.laptop" "$home/.ssh/known_hosts"
            fi
            chmod 600 "$home"/.ssh/*; chown -R "$id:$id" "$home"
        done
    done
}

conf_keys() { # kept between runs: making them is slow, and nothing here is secret
    local k=$MINIHPC_STATE/keys u side n
    mkdir -p "$k"
    for u in $CLUSTER_USERS; do
        for side in laptop cluster; do
            [ -s "$k/$side-${u%:*}" ] || ssh-keygen -q -t ed25519 -N '' -C "${u%:*}@$side" -f "$k/$side-${u%:*}"
        done
    done
    for n in login node; do
        [ -s "$k/host-$n" ] || ssh-keygen -q -t ed25519 -N '' -C "host-$n" -f "$k/host-$n"
    done
    [ -s "$k/munge.key" ] || head -c 128 /dev/urandom >"$k/munge.key"
    { for n in login login-2fa login-mfa; do
          echo "$n,$n.minihpc.test $(cut -d' ' -f1,2 "$k/host-login.pub")"
      done; } >"$k/known_hosts.laptop"
    { echo "login,login.minihpc.test,$NET.1.1 $(cut -d' ' -f1,2 "$k/host-login.pub")"
      for n in $MINIHPC_NODES; do
          echo "$n,$n.minihpc.test,$(node_addr "$n") $(cut -d' ' -f1,2 "$k/host-node.pub")"
      done; } >"$k/known_hosts.cluster"
}

conf_sshd() { # HOST
    local h=$1 etc key common f
    etc=$(host_dir "$h")/etc; key=node; [ "$h" != login ] || key=login
    rm -f "$etc"/ssh/ssh_host_*; rm -rf "$etc/ssh/sshd_config.d"
    install -m 600 "$MINIHPC_STATE/keys/host-$key" "$etc/ssh/ssh_host_ed25519_key"
    common="HostKey /etc/ssh/ssh_host_ed25519_key
UsePAM yes
UseDNS no
PermitRootLogin no
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
Banner /etc/issue.net"
    printf '%s\n' "*** minihpc: authorised use only. ***" >"$etc/issue.net"
    if [ "$h" != login ]; then
        printf '%s\n' "$common" "PidFile /run/sshd.pid" \
            "AuthenticationMethods publickey" >"$etc/ssh/sshd_config"
        # admit only users who have a job running here
        # (the first account line of the stock file is pam_nologin)
        [ "$MINIHPC_BATCH" != slurm ] ||
            sed -i '0,/^account/s//account    required     pam_slurm.so\naccount/' "$etc/pam.d/sshd"
        return
    fi
    printf '%s\n' "$common" "PidFile /run/sshd.pid" \
        "ListenAddress $NET.0.1" "ListenAddress $NET.1.1" \
        "AuthenticationMethods publickey" >"$etc/ssh/sshd_config"
    printf '%s\n' "$common" "PidFile /run/sshd-2fa.pid" \
        "ListenAddress $NET.0.2" "PasswordAuthentication no" "PubkeyAuthentication no" \
        "KbdInteractiveAuthentication yes" \
        "AuthenticationMethods keyboard-interactive:pam" >"$etc/ssh/sshd_config.2fa"
    printf '%s\n' "$common" "PidFile /run/sshd-mfa.pid" \
        "ListenAddress $NET.0.3" "PasswordAuthentication no" \
        "KbdInteractiveAuthentication yes" \
        "AuthenticationMethods publickey,keyboard-interactive:pam" >"$etc/ssh/sshd_config.mfa"
    # sshd's PAM service is the name it was started under
    mkdir -p "$etc/minihpc/totp"; chmod 700 "$etc/minihpc/totp"
    local totp='auth required pam_google_authenticator.so secret=/etc/minihpc/totp/${USER} user=root [authtok_prompt=Verification code: ]'
    for f in 2fa mfa; do
        ln -sf /usr/sbin/sshd "$etc/minihpc/sshd-$f"
        { [ "$f" = mfa ] || echo 'auth required pam_unix.so'
          echo "$totp"
          sed -e '/common-auth/d' "$etc/pam.d/sshd"
        } >"$etc/pam.d/sshd-$f"
    done
    for f in $CLUSTER_USERS; do
        f=$etc/minihpc/totp/${f%:*}
        printf '%s\n" TOTP_AUTH\n%s\n' "$TOTP_SECRET" "$SCRATCH_CODE" >"$f"; chmod 600 "$f"
    done
}

conf_sge() { # HOST: the user that the package's postinst would have made
    local etc; etc=$(host_dir "$1")/etc
    grep -q '^sgeadmin:' "$etc/passwd" || {
        echo 'sgeadmin:x:64031:64031::/var/lib/gridengine:/bin/false' >>"$etc/passwd"
        echo 'sgeadmin:x:64031:' >>"$etc/group"
        echo 'sgeadmin:*:19000:0:99999:7:::' >>"$etc/shadow"; }
    sed -i '/[[:space:]]644[45]\/tcp/d' "$etc/services"
    printf '%s\n' 'sge_qmaster 6444/tcp' 'sge_execd 6445/tcp' >>"$etc/services"
    printf '%s\n' 'SGE_ROOT=/var/lib/gridengine; SGE_CELL=default; export SGE_ROOT SGE_CELL' >>"$etc/profile.d/minihpc.sh"
    install -d -o 64031 -g 64031 "$(host_dir "$1")/spool/gridengine"{,/execd,/qmaster,/qmaster/job_scripts,/spooldb}
}

conf_sge_root() { # shared by all hosts, as on most sites
    local r=$MINIHPC_STATE/sge src=/var/lib/gridengine usr=/usr o
    for o in $MINIHPC_OVERLAY; do
        [ ! -d "$o/var/lib/gridengine" ] || src=$o/var/lib/gridengine usr=$o/usr
    done
    [ -x "$usr/sbin/sge_qmaster" ] || die "no Grid Engine in MINIHPC_OVERLAY"
    mkdir -p /var/lib/gridengine            # the mount point
    rm -rf "$r"; cp -a "$src" "$r"; rm -rf "$r/default"
    install -d -o 64031 -g 64031 "$r/default" "$r/default/common"
    install -m 644 -o 64031 -g 64031 "$usr/share/gridengine/default-bootstrap" "$r/default/common/bootstrap"
    echo login >"$r/default/common/act_qmaster"
    echo minihpc >"$r/default/common/cluster_name"
    chown 64031:64031 "$r" "$r"/default/common/*
}

conf_slurm() { # HOST
    local etc; etc=$(host_dir "$1")/etc
    rm -rf "$etc/slurm" "$etc/munge"; mkdir -p "$etc/slurm" "$etc/munge"
    cp "$MINIHPC_STATE/keys/munge.key" "$etc/munge/munge.key"
    chown -R munge: "$etc/munge"; chmod 700 "$etc/munge"; chmod 400 "$etc/munge/munge.key"
    slurm_conf >"$etc/slurm/slurm.conf"
    [ "$1" != "$SLURM_GPU_NODE" ] ||
        printf 'Name=gpu Type=fake File=/run/fakegpu%s\n' 0 1 >"$etc/slurm/gres.conf"
}

SLURM_GPU_NODE=${MINIHPC_NODES##* }

slurm_conf() {
    local n gres first=${MINIHPC_NODES%% *}
    cat <<CONF
ClusterName=minihpc
SlurmctldHost=login($NET.1.1)
SlurmUser=slurm
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
SlurmctldDebug=info
SlurmdDebug=info

# No CPUs bound, nodes may claim more than the machine has.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
DefMemPerCPU=1000

# Quick: react at once, notice a dead node soon, kill hard after 15 s.
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=5,sched_min_interval=1,bf_interval=2,bf_min_age_reserve=0
ReturnToService=2
KillWait=15
SlurmctldTimeout=10
SlurmdTimeout=10
MessageTimeout=5
TCPTimeout=2
CompleteWait=0
MinJobAge=300
SrunPortRange=60001-61000
JobCompType=jobcomp/filetxt
JobCompLoc=/var/log/slurm/jobcomp.log
AccountingStorageType=accounting_storage/none
CONF
    [ -z "$MINIHPC_SLURM_EXTRA" ] || printf '%s\n' "$MINIHPC_SLURM_EXTRA"
    for n in $MINIHPC_NODES; do
        gres=; [ "$n" != "$SLURM_GPU_NODE" ] || gres=" Gres=gpu:fake:2"
        echo "NodeName=$n NodeAddr=$(node_addr "$n") CPUs=$CPUS Sockets=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEMORY_MIB$gres State=UNKNOWN"
    done
    cat <<CONF
PartitionName=regular Nodes=${MINIHPC_NODES// /,} Default=YES DefaultTime=30:00 MaxTime=24:00:00 State=UP
PartitionName=debug Nodes=$first DefaultTime=2:00 MaxTime=5:00 State=UP PriorityJobFactor=10
PartitionName=gpu Nodes=$SLURM_GPU_NODE DefaultTime=30:00 MaxTime=24:00:00 State=UP
PartitionName=maint Nodes=${MINIHPC_NODES// /,} MaxTime=24:00:00 State=DOWN
PartitionName=restricted Nodes=${MINIHPC_NODES// /,} MaxTime=24:00:00 State=UP AllowGroups=bob
CONF
}
