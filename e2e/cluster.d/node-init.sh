#!/usr/bin/env bash
# node-init.sh DIRECTORY: process 1 of the node's own pid, mount and network namespaces. It sets up mounts and reaps
# orphans; e2e/cluster starts the components. When it ends, the kernel ends every process, mount and link of the node.
set -euo pipefail

readonly directory=$1
trap '' HUP INT TERM

# The kubelet wants shared propagation; it reaches no further than this mount namespace.
mount --make-rshared /
# Sockets live here, under short paths: a socket's path may have 107 bytes at most.
mount -t tmpfs -o mode=755,size=64m tmpfs /run
mkdir -p /run/lock /run/netns /run/containerd
mount --bind "$directory/var/lib" /var/lib
mount --bind "$directory/var/log" /var/log

ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
# Service addresses must also work between pods on the same bridge.
for switch in bridge-nf-call-iptables bridge-nf-call-ip6tables; do
  if [[ -e /proc/sys/net/bridge/$switch ]]; then echo 1 >"/proc/sys/net/bridge/$switch"; fi
done

: >"$directory/node.ready"
while :; do
  sleep 3600 &
  wait $! || true
done
