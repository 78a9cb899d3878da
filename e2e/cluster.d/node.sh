# Sourced by e2e/cluster: the node (namespaces, link, cgroups, sysctls), and what it may have left behind.
# shellcheck shell=bash disable=SC2154  # dir, parts, say, die, await, start_time come from e2e/cluster

readonly NODE=node1
readonly HOST_IP=10.250.0.1
readonly NODE_IP=10.250.0.2
readonly POD_CIDR=10.244.0.0/24
readonly SERVICE_CIDR=10.96.0.0/16
readonly API_SERVICE_IP=10.96.0.1
readonly DNS_IP=10.96.0.10
readonly LINK=streamapp-h
readonly CGROUP=streamapp-cluster
readonly CSI_DRIVER=loop.csi.streamapp.test
# In the environment of every process of the node, with its directory as value.
readonly MARKER=STREAMAPP_CLUSTER_NODE
# The kubelet sets these for the whole machine.
readonly SYSCTLS=(
  vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes
)

# Sets init, the node's process 1 as this machine counts, and its start time, if that very process still lives.
node_runs() {
  init='' started=''
  [[ -f $dir/pid ]] || return 1
  read -r init started <"$dir/pid" || return 1
  [[ $init =~ ^[0-9]+$ && $(start_time "$init") == "$started" ]]
}

node_ended() { ! node_runs; }

in_node() { nsenter -t "$init" -m -n -p -- "$@"; }

start_node() {
  mkdir -p "$dir"/{conf/cni,log,pids,var/log/pods,var/log/containers} \
    "$dir"/var/lib/{kubelet,containerd,cni,streamapp-volumes,imported}
  mkdir -p -m 700 "$dir/etcd"
  rm -f "$dir"/pids/* "$dir"/pids/.[!.]* "$dir/node.ready"
  rotate_logs
  "$parts/pki.sh" "$dir/pki" "$NODE" "$NODE_IP" "$API_SERVICE_IP"
  write_configuration
  save_sysctls
  make_cgroups
  local outside
  # The lock's descriptor (9) must not live on in the node.
  env -i PATH="$PATH" HOME="$HOME" LC_ALL=C.UTF-8 "$MARKER=$dir" \
    setsid unshare --net --mount --pid --fork --kill-child --mount-proc /bin/bash "$parts/node-init.sh" "$dir" \
    >"$dir/log/node.log" 2>&1 </dev/null 9>&- &
  outside=$!
  disown "$outside"
  # shellcheck disable=SC2064  # the pid of now
  trap "abandon_node '$outside'" EXIT
  await 10 test -e "$dir/node.ready" || { cat "$dir/log/node.log" >&2; die "the node did not start"; }
  init=$(pgrep -P "$outside") || die "the node ended at once; see $dir/log/node.log"
  printf '%s %s\n' "$init" "$(start_time "$init")" >"$dir/pid"
  connect
  trap - EXIT
}

abandon_node() {
  trap '' INT TERM
  kill -KILL "$1" 2>/dev/null || true
  clean_up || true
}

rotate_logs() {
  local log
  for log in "$dir"/log/*.log; do
    [[ ! -f $log ]] || mv -f "$log" "$log.1"
  done
}

# fill FILE: prints a template with the cluster's values.
fill() {
  sed -e "s#@DIR@#$dir#g" -e "s#@NODE@#$NODE#g" -e "s#@NODE_IP@#$NODE_IP#g" -e "s#@DNS_IP@#$DNS_IP#g" \
    -e "s#@POD_CIDR@#$POD_CIDR#g" -e "s#@CGROUP@#$CGROUP#g" -e "s#@CSI_DRIVER@#$CSI_DRIVER#g" \
    -e "s#@PAUSE_IMAGE@#$PAUSE_IMAGE#g" -e "s#@COREDNS_IMAGE@#$COREDNS_IMAGE#g" "$1"
}

write_configuration() {
  : >"$dir/conf/resolv.conf"
  fill "$parts/conf/kubelet.yaml.in" >"$dir/conf/kubelet.yaml"
  fill "$parts/conf/proxy.yaml.in" >"$dir/conf/proxy.yaml"
  fill "$parts/conf/containerd.toml.in" >"$dir/conf/containerd.toml"
  fill "$parts/conf/10-pods.conflist.in" >"$dir/conf/cni/10-pods.conflist"
  local manifest
  for manifest in "$parts"/manifests/*.yaml.in; do
    fill "$manifest"
    echo ---
  done >"$dir/conf/manifests.yaml"
}

# No default route on purpose: pods reach this machine's end of the link and nothing beyond.
connect() {
  ip link add "$LINK" type veth peer name eth0 netns "$init"
  ip addr add "$HOST_IP/30" dev "$LINK"
  ip link set "$LINK" up
  in_node ip addr add "$NODE_IP/30" dev eth0
  in_node ip link set eth0 up
  # The API server calls webhooks by their service's address.
  in_node ip route add "$SERVICE_CIDR" dev eth0
  ip route add "$POD_CIDR" via "$NODE_IP"
  ip route add "$SERVICE_CIDR" via "$NODE_IP"
}

# --- what belongs to the whole machine --------------------------------------------------------

# The kubelet runs in this machine's cgroups, below one directory of its own.
cgroup_roots() {
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    echo /sys/fs/cgroup/
    return 0
  fi
  local root
  for root in /sys/fs/cgroup/*/; do
    [[ -L ${root%/} || $root == */unified/ || ! -w $root ]] || echo "$root"
  done
}

make_cgroups() {
  local root file
  for root in $(cgroup_roots); do
    if [[ -e ${root}cgroup.subtree_control ]]; then
      echo "+cpu +cpuset +memory +pids" >"${root}cgroup.subtree_control"
    fi
    mkdir -p "$root$CGROUP"
  done
  # Version 1 starts a cpuset empty, and an empty one takes no process.
  for file in cpuset.cpus cpuset.mems; do
    [[ ! -e /sys/fs/cgroup/cpuset/$file ]] || cat "/sys/fs/cgroup/cpuset/$file" >"/sys/fs/cgroup/cpuset/$CGROUP/$file"
  done
}

remove_cgroups() {
  local root
  for root in $(cgroup_roots); do
    [[ ! -d $root$CGROUP ]] || find "$root$CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
  [[ -z $(left_cgroups) ]]
}

save_sysctls() {
  [[ ! -f $dir/sysctls ]] || return 0
  local name
  for name in "${SYSCTLS[@]}"; do
    echo "$name=$(sysctl -n "$name")"
  done >"$dir/sysctls.part"
  mv -f "$dir/sysctls.part" "$dir/sysctls"
}

restore_sysctls() {
  [[ -f $dir/sysctls ]] || return 0
  sysctl -q -p "$dir/sysctls"
  rm -f "$dir/sysctls"
}

# --- ending -----------------------------------------------------------------------------------

# A power cut for pods and components. Only etcd gets the time to close its log; the API server, which would wait for
# its watchers, must be gone by then.
stop_node() {
  end_component apiserver KILL
  end_component etcd TERM
  kill -KILL "$init" 2>/dev/null || true
  await "$STOP_DEADLINE_S" node_ended || die "the node's process 1 (pid $init) does not end"
}

# Also after a node that was killed, or whose directory was removed under it.
clean_up() {
  local pid
  for pid in $(left_processes); do kill -KILL "$pid" 2>/dev/null || true; done
  await 10 nothing_in left_processes || true
  # Link, cgroups and loop devices have the same names in every cluster.
  if [[ -z $(other_clusters) ]]; then
    ip link del "$LINK" 2>/dev/null || true
    await 20 remove_cgroups || true
    # Unmounting the volumes takes the kernel a moment.
    await 20 nothing_in left_loops || true
  fi
  restore_sysctls
  rm -f "$dir/pid" "$dir/node.ready" "$dir"/pids/* "$dir"/pids/.[!.]* 2>/dev/null || true
}

nothing_in() { [[ -z $("$@") ]]; }

# Prints pid and directory of each process of any cluster's node.
node_processes() {
  local file pid directory
  for file in $(grep -lsa "$MARKER=" /proc/[0-9]*/environ || true); do
    pid=${file#/proc/}
    pid=${pid%/environ}
    directory=$(tr '\0' '\n' <"$file" 2>/dev/null | sed -n "s#^$MARKER=##p") || true
    [[ -z $directory ]] || echo "$pid $directory"
  done
}

other_clusters() { node_processes | awk -v dir="$dir" '$2 != dir { print $2 }' | sort -u; }
left_processes() { node_processes | awk -v dir="$dir" '$2 == dir { print $1 }'; }
left_mounts() { awk -v dir="$dir/" 'index($5 "/", dir) == 1 { print $5 }' /proc/self/mountinfo; }
left_links() { ip -o link show "$LINK" 2>/dev/null || true; }
left_routes() { ip route show | grep -E "^(${HOST_IP%.*}\.|${POD_CIDR%.*}\.|${SERVICE_CIDR%.*.*}\.)" || true; }
left_loops() { losetup -n -O NAME,BACK-FILE 2>/dev/null | grep -F "${VOLUMES#/var/lib/}" || true; }
left_cgroups() {
  local root
  for root in $(cgroup_roots); do
    [[ ! -d $root$CGROUP ]] || echo "$root$CGROUP"
  done
}
left_sysctls() { [[ ! -f $dir/sysctls ]] || echo "$dir/sysctls: not restored"; }
left_namespaces() {
  lsns -n -o NS,TYPE,PID,COMMAND 2>/dev/null | grep -F "node-init.sh $dir" || true
}

leftovers() {
  local what found bad=0 kinds=(processes namespaces mounts sysctls)
  # These have the same names in every cluster: while another one runs, they are its own.
  [[ -n $(other_clusters) ]] || kinds+=(links routes cgroups loops)
  for what in "${kinds[@]}"; do
    found=$("left_$what")
    if [[ -n $found ]]; then
      bad=1
      printf '%s left:\n' "$what"
      # shellcheck disable=SC2001  # one indent for each line
      sed 's/^/  /' <<<"$found"
    fi
  done
  [[ $bad == 1 ]] || echo "nothing is left"
  return "$bad"
}
