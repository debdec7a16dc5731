#!/usr/bin/env bash
# A SLURM cluster of this machine alone, as root, without systemd and without accounting: single_node_slurm.sh up|down
# Needs slurmctld, slurmd and munged (Debian and Ubuntu: apt-get install slurm-wlm munge).
set -euo pipefail

home=${SINGLE_NODE_SLURM:-/var/tmp/single-node-slurm}
node=$(hostname -s)

up() {
  mkdir -p "$home/state" "$home/spool"
  install -d -o munge -g munge -m 0755 /run/munge
  pgrep -u munge munged > /dev/null || runuser -u munge -- munged
  # The executor plugin hides SLURM_* from jobs, SLURM_CONF too: the file must be where SLURM looks for it.
  cat > /etc/slurm/slurm.conf << EOF
ClusterName=single
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MinJobAge=3600
DefMemPerCPU=500
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc --all) RealMemory=$(awk '/MemTotal/ {print int($2 / 1280)}' /proc/meminfo) State=UNKNOWN
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
EOF
  setsid slurmctld
  setsid slurmd
  for _ in $(seq 40); do
    if sinfo --noheader --format %t 2> /dev/null | grep -qE 'idle|mix|alloc'; then sinfo; return; fi
    sleep 0.5
  done
  echo "SLURM did not come up; see $home/*.log" >&2
  return 1
}

down() {
  for daemon in slurmd slurmctld; do
    if [ -s "$home/$daemon.pid" ]; then kill "$(cat "$home/$daemon.pid")" || true; fi
  done
  rm -f /etc/slurm/slurm.conf
}

"$1"
