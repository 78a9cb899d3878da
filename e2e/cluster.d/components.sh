# Sourced by e2e/cluster: the node's components, their command lines, starting and ending them.
# shellcheck shell=bash disable=SC2154  # dir, say, die, await, start_time, init come from e2e/cluster

# In the order of their start.
readonly COMPONENTS=(etcd containerd apiserver kcm scheduler kubelet proxy loopcsi csi-provisioner csi-resizer)
readonly CSI_SOCKET=/var/lib/kubelet/plugins/$CSI_DRIVER/csi.sock
# In the node /var/lib is the cluster's own; leftovers looks for this name among the loop devices.
readonly VOLUMES=/var/lib/streamapp-volumes
# Only the system's: containerd finds its shim there, and Debian's must not meet another version.
readonly NODE_PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
readonly COMPONENT_STOP_DEADLINE_S=20

is_component() { [[ " ${COMPONENTS[*]} " == *" $1 "* ]]; }

# Sets the array command_line for the component.
set_command_line() {
  local pki=$dir/pki
  case $1 in
    etcd)
      local client=https://127.0.0.1:2379 peer=https://127.0.0.1:2380
      command_line=("$(program_path etcd)" --name "$NODE" --data-dir "$dir/etcd" --log-level warn
        --listen-client-urls "$client" --advertise-client-urls "$client"
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "$NODE=$peer"
        --cert-file "$pki/etcd.crt" --key-file "$pki/etcd.key" --client-cert-auth --trusted-ca-file "$pki/etcd-ca.crt"
        --peer-cert-file "$pki/etcd.crt" --peer-key-file "$pki/etcd.key" --peer-client-cert-auth
        --peer-trusted-ca-file "$pki/etcd-ca.crt")
      ;;
    apiserver)
      command_line=("$(program_path kube-apiserver)" --advertise-address="$NODE_IP" --bind-address="$NODE_IP" --secure-port=6443
        --etcd-servers=https://127.0.0.1:2379 --etcd-cafile="$pki/etcd-ca.crt"
        --etcd-certfile="$pki/apiserver-etcd.crt" --etcd-keyfile="$pki/apiserver-etcd.key"
        --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key"
        --client-ca-file="$pki/ca.crt" --anonymous-auth=false --profiling=false
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true
        --service-cluster-ip-range="$SERVICE_CIDR"
        --service-account-issuer=https://kubernetes.default.svc.cluster.local
        --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key"
        --kubelet-client-certificate="$pki/apiserver-kubelet.crt" --kubelet-client-key="$pki/apiserver-kubelet.key"
        --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP
        --requestheader-client-ca-file="$pki/front-ca.crt" --requestheader-allowed-names=front-proxy-client
        --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group
        --requestheader-extra-headers-prefix=X-Remote-Extra-
        --proxy-client-cert-file="$pki/front.crt" --proxy-client-key-file="$pki/front.key")
      ;;
    kcm)
      command_line=("$(program_path kube-controller-manager)" --leader-elect=false --bind-address=127.0.0.1 --profiling=false
        --kubeconfig="$pki/kcm.kubeconfig" --authentication-kubeconfig="$pki/kcm.kubeconfig"
        --authorization-kubeconfig="$pki/kcm.kubeconfig" --use-service-account-credentials=true
        --service-account-private-key-file="$pki/sa.key" --root-ca-file="$pki/ca.crt"
        --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key")
      ;;
    scheduler)
      command_line=("$(program_path kube-scheduler)" --leader-elect=false --bind-address=127.0.0.1 --profiling=false
        --kubeconfig="$pki/scheduler.kubeconfig" --authentication-kubeconfig="$pki/scheduler.kubeconfig"
        --authorization-kubeconfig="$pki/scheduler.kubeconfig")
      ;;
    containerd) command_line=(containerd --config "$dir/conf/containerd.toml" --log-level info) ;;
    kubelet)
      command_line=("$(program_path kubelet)" --config="$dir/conf/kubelet.yaml" --kubeconfig="$pki/kubelet.kubeconfig"
        --hostname-override="$NODE" --node-ip="$NODE_IP" --root-dir=/var/lib/kubelet --cert-dir=/var/lib/kubelet/pki)
      ;;
    proxy) command_line=("$(program_path kube-proxy)" --config="$dir/conf/proxy.yaml") ;;
    loopcsi) command_line=("$(program_path loopcsi)" --name "$CSI_DRIVER" --node "$NODE" --dir "$VOLUMES") ;;
    # The sidecars act as admin: their narrow roles are not what this cluster is to test.
    csi-provisioner)
      command_line=("$(program_path csi-provisioner)" --csi-address="$CSI_SOCKET" --kubeconfig="$pki/admin.kubeconfig"
        --feature-gates=Topology=false --default-fstype=xfs)
      ;;
    csi-resizer)
      command_line=("$(program_path csi-resizer)" --csi-address="$CSI_SOCKET" --kubeconfig="$pki/admin.kubeconfig"
        --handle-volume-inuse-error=false)
      ;;
    *) die "no component $1: ${COMPONENTS[*]}" ;;
  esac
}

# Sets component_pid (as this machine counts) and component_since (UTC, to the second) if the component lives.
component_runs() {
  local since
  component_pid='' component_since=''
  [[ -f $dir/pids/$1 ]] || return 1
  read -r component_pid since component_since <"$dir/pids/$1" || return 1
  [[ $component_pid =~ ^[0-9]+$ && $(start_time "$component_pid") == "$since" ]]
}

component_ended() { ! component_runs "$1"; }

start_component() {
  local name=$1
  ! component_runs "$name" || return 0
  local command_line inner=$dir/pids/.$name host
  set_command_line "$name"
  rm -f "$inner"
  # Process 1 of the node must become its parent: hence --fork. The lock's descriptor must not live on in it.
  # shellcheck disable=SC2016  # the inner shell's variables
  in_node setsid --fork env -i PATH="$NODE_PATH" HOME="$HOME" LC_ALL=C.UTF-8 "$MARKER=$dir" /bin/bash -c '
    echo $$ >"$1.part" && mv "$1.part" "$1"
    log=$2
    shift 2
    cd /
    exec "$@" >>"$log" 2>&1 </dev/null' start "$inner" "$dir/log/$name.log" "${command_line[@]}" 9>&-
  await 10 test -s "$inner" || die "$name did not start"
  host=$(host_pid "$(<"$inner")") || { log_tail "$name"; die "$name ended at once"; }
  rm -f "$inner"
  printf '%s %s %s\n' "$host" "$(start_time "$host")" "$(date -u +%FT%TZ)" >"$dir/pids/$name"
}

# The pid on this machine of a process of the node: NSpid lists both, and the node's pods add a third.
# Processes end while this looks: grep goes on after a file that is gone, awk would not.
host_pid() {
  local candidate
  for candidate in $(grep -shP "^NSpid:\t[0-9]+\t$1\$" /proc/[0-9]*/status | cut -f2); do
    if [[ $(readlink "/proc/$candidate/ns/pid") == "$(readlink "/proc/$init/ns/pid")" ]]; then
      echo "$candidate"
      return 0
    fi
  done
  return 1
}

# end_component NAME SIGNAL
end_component() {
  component_runs "$1" || return 0
  kill "-$2" "$component_pid" 2>/dev/null || true
  if ! await "$COMPONENT_STOP_DEADLINE_S" component_ended "$1"; then
    say "$1 did not end within $COMPONENT_STOP_DEADLINE_S s: SIGKILL"
    kill -KILL "$component_pid" 2>/dev/null || true
    await 10 component_ended "$1" || die "$1 (pid $component_pid) does not end"
  fi
  rm -f "$dir/pids/$1"
}

log_tail() { tail -n 15 "$dir/log/$1.log" >&2 || true; }
