#!/bin/bash
# A SLURM of two virtual nodes, n1 and n2, on this machine: slurmctld, two slurmd and munge of Debian's slurm-wlm.
#
#   cluster.sh start DIR    cluster.sh stop DIR    cluster.sh kill-node DIR n2    cluster.sh start-node DIR n2
#
# Needs root and `apt-get install slurm-wlm munge`. All files are in DIR; SLURM_CONF=DIR/slurm.conf is what squeue and
# the others need. The nodes' names are entered in /etc/hosts while the cluster runs, and taken out by stop.
set -euo pipefail
what=$1 dir=$(realpath -m "$2")
mark="# vitreous test cluster"

write_configuration() {
    mkdir -p "$dir"/{state,spool,log,munge}
    chmod 755 "$dir" "$dir/munge"
    [ -e "$dir/munge.key" ] || { head -c 128 /dev/urandom > "$dir/munge.key"; chmod 400 "$dir/munge.key"; }
    cat > "$dir/slurm.conf" <<CONF
ClusterName=vitreous
SlurmctldHost=$(hostname -s)
SlurmctldPort=17010
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
SlurmdTimeout=15
KillWait=20
MinJobAge=600
OverTimeLimit=0
JobRequeue=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=n1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=17011 CPUs=2 RealMemory=4000
NodeName=n2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=17012 CPUs=2 RealMemory=4000
PartitionName=test Nodes=n1,n2 Default=YES MaxTime=60 State=UP OverSubscribe=NO
CONF
}

start_node() { SLURM_CONF="$dir/slurm.conf" slurmd -N "$1"; }

# A node that dies takes its jobs' processes with it; those of a virtual one have to be killed by hand.
kill_node() {
    local daemon step
    daemon=$(cat "$dir/$1.pid")
    for step in $(steps); do
        { belongs "$step" "$1" || any_child_belongs "$step" "$1"; } && kill_tree "$step"
    done
    kill -9 "$daemon" 2>/dev/null || true
}

# End a daemon, and wait until it has gone.
end() {
    kill "$1" 2>/dev/null || return 0
    for _ in $(seq 100); do kill -0 "$1" 2>/dev/null || return 0; sleep 0.1; done
    kill -9 "$1" 2>/dev/null || true
}

steps() { pgrep -f "slurmstepd: \[" || true; }

belongs() { grep -qz "SLURMD_NODENAME=$2" "/proc/$1/environ" 2>/dev/null; }

any_child_belongs() {
    local child
    for child in $(pgrep -P "$1" || true); do belongs "$child" "$2" && return 0; done
    return 1
}

kill_tree() {
    local child
    kill -STOP "$1" 2>/dev/null || true
    for child in $(pgrep -P "$1" || true); do kill_tree "$child"; done
    kill -9 "$1" 2>/dev/null || true
}

case $what in
    start)
        write_configuration
        grep -q "$mark" /etc/hosts || echo "127.0.0.1 n1 n2 $mark" >> /etc/hosts
        munged --force --key-file="$dir/munge.key" --socket="$dir/munge/socket" --pid-file="$dir/munged.pid" \
            --log-file="$dir/log/munged.log" --seed-file="$dir/munge.seed"
        export SLURM_CONF="$dir/slurm.conf"
        slurmctld
        start_node n1
        start_node n2
        for _ in $(seq 60); do
            [ "$(sinfo --noheader --states=idle --format=%D)" = 2 ] && exit 0
            sleep 0.5
        done
        sinfo >&2
        exit 1 ;;
    start-node) start_node "$3" ;;
    kill-node) kill_node "$3" ;;
    stop)
        SLURM_CONF="$dir/slurm.conf" timeout 10 scancel --user="$(id -un)" 2>/dev/null || true
        for _ in $(seq 50); do [ -z "$(steps)" ] && break; sleep 0.1; done
        for name in n1 n2; do [ -e "$dir/$name.pid" ] && kill_node "$name"; done
        for step in $(steps); do # what is left is waiting for a daemon that is gone
            grep -qzF "SLURM_CONF=$dir/" "/proc/$step/environ" 2>/dev/null && kill_tree "$step"
        done
        for name in slurmctld munged; do
            [ -e "$dir/$name.pid" ] && end "$(cat "$dir/$name.pid")"
        done
        grep -v "$mark" /etc/hosts > "$dir/hosts" || true
        cat "$dir/hosts" > /etc/hosts ;;
    *) echo "unknown: $what" >&2; exit 2 ;;
esac
