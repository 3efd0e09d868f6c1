#!/usr/bin/env bash
# One CA, one serving certificate, one client certificate per component.
set -euo pipefail; . "$(dirname "$0")/env.sh"
mkdir -p "$PKI"; chmod 700 "$PKI"; cd "$PKI"
[ -f ca.crt ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -days 3650 -subj /CN=test-ca \
  -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature >/dev/null 2>&1
cert() { # name subject extension-lines
  [ -f $1.crt ] && return 0
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $1.key -out $1.csr -subj "$2" >/dev/null 2>&1
  openssl x509 -req -in $1.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out $1.crt -extfile <(printf '%b' "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n$3") 2>/dev/null
  rm $1.csr
}
client="extendedKeyUsage=clientAuth"; both="extendedKeyUsage=serverAuth,clientAuth"
cert apiserver /CN=kube-apiserver "$both\nsubjectAltName=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:$SVC_FIRST_IP,IP:$POD_NET.1"
cert etcd /CN=etcd "$both\nsubjectAltName=DNS:localhost,IP:127.0.0.1"
cert admin /O=system:masters/CN=admin "$client"
cert apiserver-kubelet /O=system:masters/CN=apiserver-kubelet "$client"
cert kcm /CN=system:kube-controller-manager "$client"
cert scheduler /CN=system:kube-scheduler "$client"
cert kubelet "/O=system:nodes/CN=system:node:$NODE_NAME" "$both\nsubjectAltName=DNS:$NODE_NAME,IP:127.0.0.1,IP:$POD_NET.1"
cert kube-proxy /CN=system:kube-proxy "$client"
cert kwok /O=system:masters/CN=kwok "$client"
cert coredns /O=system:masters/CN=coredns "$client"
cert front-proxy /CN=front-proxy-client "$client"
[ -f sa.key ] || openssl genrsa -out sa.key 2048 2>/dev/null
kc() { # component: embedded client certificate
  local f=$STATE/$1.kubeconfig
  cat >"$f" <<Y
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "$API", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: u, user: {client-certificate-data: $(base64 -w0 $1.crt), client-key-data: $(base64 -w0 $1.key)}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
Y
  chmod 600 "$f"
}
for c in admin kcm scheduler kubelet kube-proxy kwok coredns; do kc $c; done
