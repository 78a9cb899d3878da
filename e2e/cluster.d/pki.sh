#!/usr/bin/env bash
# pki.sh DIRECTORY NODE NODE_IP API_SERVICE_IP: makes the cluster's certificates, keys and kubeconfigs, once.
# Three authorities (cluster, etcd, front proxy), as kubeadm has them.
set -euo pipefail

readonly directory=$1 node=$2 node_ip=$3 api_service_ip=$4
readonly DAYS=3650

[[ ! -e $directory/admin.kubeconfig ]] || exit 0
part=$directory.part
rm -rf "$part"
(umask 077 && mkdir -p "$part")
cd "$part"
umask 077

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key" 2>/dev/null; }

authority() {
  key "$1"
  openssl req -x509 -new -key "$1.key" -subj "/CN=$2" -days "$DAYS" -out "$1.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature 2>/dev/null
}

# certificate NAME AUTHORITY SUBJECT USAGE [ALTERNATIVE_NAMES]
certificate() {
  key "$1"
  {
    echo "basicConstraints=critical,CA:FALSE"
    echo "keyUsage=critical,digitalSignature,keyEncipherment"
    echo "extendedKeyUsage=$4"
    if [[ $# -ge 5 ]]; then echo "subjectAltName=$5"; fi
  } >"$1.ext"
  openssl req -new -key "$1.key" -subj "$3" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -days "$DAYS" \
    -extfile "$1.ext" -out "$1.crt" 2>/dev/null
  rm -f "$1.csr" "$1.ext"
}

# kubeconfig NAME: for the client certificate of that name.
kubeconfig() {
  cat >"$1.kubeconfig" <<EOF
apiVersion: v1
kind: Config
clusters:
- name: streamapp
  cluster: {server: "https://$node_ip:6443", certificate-authority-data: $(base64 -w0 ca.crt)}
users:
- name: $1
  user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}
contexts:
- name: streamapp
  context: {cluster: streamapp, user: $1}
current-context: streamapp
EOF
}

authority ca kubernetes-ca
authority etcd-ca etcd-ca
authority front-ca front-proxy-ca

certificate etcd etcd-ca /CN=etcd serverAuth,clientAuth "IP:127.0.0.1,DNS:localhost"
certificate apiserver-etcd etcd-ca /CN=apiserver-etcd-client clientAuth
certificate front front-ca /CN=front-proxy-client clientAuth

service=kubernetes.default.svc
certificate apiserver ca /CN=kube-apiserver serverAuth \
  "DNS:kubernetes,DNS:kubernetes.default,DNS:$service,DNS:$service.cluster.local,DNS:localhost,IP:127.0.0.1,IP:$node_ip,IP:$api_service_ip"
certificate apiserver-kubelet ca /CN=kube-apiserver-kubelet-client clientAuth
certificate kubelet-server ca "/O=system:nodes/CN=system:node:$node" serverAuth "DNS:$node,IP:$node_ip,IP:127.0.0.1"

certificate admin ca "/O=system:masters/CN=admin" clientAuth
certificate kcm ca /CN=system:kube-controller-manager clientAuth
certificate scheduler ca /CN=system:kube-scheduler clientAuth
certificate proxy ca /CN=system:kube-proxy clientAuth
certificate kubelet ca "/O=system:nodes/CN=system:node:$node" clientAuth
for user in admin kcm scheduler proxy kubelet; do kubeconfig "$user"; done

# Signs the tokens of service accounts.
key sa
openssl ec -in sa.key -pubout -out sa.pub 2>/dev/null

rm -rf "$directory"
mv -T "$part" "$directory"
