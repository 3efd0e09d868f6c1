#!/usr/bin/env bash
# Control plane: etcd + kube-apiserver + kube-controller-manager + kube-scheduler,
# TLS everywhere, RBAC, client certificates.  Needs no root when K8S_NODE=0.
set -euo pipefail; . "$(dirname "$0")/env.sh"
t0=$(date +%s.%N); el() { python3 -c "import sys;print('%6.2fs %s'%(float(sys.argv[1])-$t0,sys.argv[2]))" $(date +%s.%N) "$1"; }
mkdir -p "$LOGS" "$RUN" "$STATE/etcd"; chmod 700 "$STATE" "$STATE/etcd"
if [ -f "$RUN/apiserver.pid" ] && alive apiserver; then echo "already up: $KUBECONFIG"; exit 0; fi
"$HERE/pki.sh"
el pki
if [ "$NODE" = 1 ]; then "$HERE/bridge.sh" up; fi

start etcd "$BIN/etcd" --name=e --data-dir="$STATE/etcd" --unsafe-no-fsync --log-level=warn \
  --listen-client-urls=https://127.0.0.1:$ETCD_PORT --advertise-client-urls=https://127.0.0.1:$ETCD_PORT \
  --listen-peer-urls=https://127.0.0.1:$ETCD_PEER_PORT --initial-advertise-peer-urls=https://127.0.0.1:$ETCD_PEER_PORT \
  --initial-cluster=e=https://127.0.0.1:$ETCD_PEER_PORT \
  --cert-file="$PKI/etcd.crt" --key-file="$PKI/etcd.key" --trusted-ca-file="$PKI/ca.crt" --client-cert-auth \
  --peer-cert-file="$PKI/etcd.crt" --peer-key-file="$PKI/etcd.key" --peer-trusted-ca-file="$PKI/ca.crt" --peer-client-cert-auth

# the API server retries etcd by itself: no need to wait in between
api=(--bind-address=$API_IP --secure-port=$API_PORT --cert-dir="$PKI/x"
  --etcd-servers=https://127.0.0.1:$ETCD_PORT --etcd-cafile="$PKI/ca.crt" --etcd-certfile="$PKI/etcd.crt" --etcd-keyfile="$PKI/etcd.key"
  --client-ca-file="$PKI/ca.crt" --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key"
  --authorization-mode=Node,RBAC --anonymous-auth=false --enable-admission-plugins=NodeRestriction
  --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$PKI/sa.key" --service-account-signing-key-file="$PKI/sa.key"
  --service-cluster-ip-range=$SVC_CIDR --allow-privileged=true
  --kubelet-client-certificate="$PKI/apiserver-kubelet.crt" --kubelet-client-key="$PKI/apiserver-kubelet.key" --kubelet-certificate-authority="$PKI/ca.crt"
  --kubelet-preferred-address-types=InternalIP
  --requestheader-client-ca-file="$PKI/ca.crt" --requestheader-allowed-names=front-proxy-client
  --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra-
  --proxy-client-cert-file="$PKI/front-proxy.crt" --proxy-client-key-file="$PKI/front-proxy.key" --enable-aggregator-routing=true
  --audit-policy-file="$HERE/conf/audit.yaml" --audit-log-path="$LOGS/audit.log"
  --max-requests-inflight=3000 --max-mutating-requests-inflight=1000
  --shutdown-delay-duration=0s)
if [ "$NODE" = 1 ]; then api+=(--advertise-address=$API_IP)
else api+=(--endpoint-reconciler-type=none); fi     # loopback may not be advertised
# K8S_FEATURE_ARGS: extra flags, e.g. --feature-gates=... --runtime-config=...
start apiserver "$BIN/kube-apiserver" "${api[@]}" ${K8S_FEATURE_ARGS:-}
wait_http apiserver "$API/readyz" 90
el "apiserver /readyz"

start kcm "$BIN/kube-controller-manager" --kubeconfig="$STATE/kcm.kubeconfig" --authentication-kubeconfig="$STATE/kcm.kubeconfig" --authorization-kubeconfig="$STATE/kcm.kubeconfig" \
  --bind-address=127.0.0.1 --secure-port=$KCM_PORT --cert-dir="$PKI/x" --tls-cert-file="$PKI/etcd.crt" --tls-private-key-file="$PKI/etcd.key" \
  --leader-elect=false --use-service-account-credentials --root-ca-file="$PKI/ca.crt" --service-account-private-key-file="$PKI/sa.key" \
  --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" --allocate-node-cidrs=false --flex-volume-plugin-dir="$STATE/flex" --service-cluster-ip-range=$SVC_CIDR \
  --kube-api-qps=1000 --kube-api-burst=2000 --concurrent-deployment-syncs=20 --concurrent-replicaset-syncs=20 \
  --node-monitor-grace-period=${K8S_NODE_GRACE:-40s}
render "$HERE/conf/scheduler.yaml" "$STATE/scheduler.yaml"
start scheduler "$BIN/kube-scheduler" --config="$STATE/scheduler.yaml" --authentication-kubeconfig="$STATE/scheduler.kubeconfig" --authorization-kubeconfig="$STATE/scheduler.kubeconfig" \
  --bind-address=127.0.0.1 --secure-port=$SCHED_PORT --cert-dir="$PKI/x" --tls-cert-file="$PKI/etcd.crt" --tls-private-key-file="$PKI/etcd.key"
wait_http kcm https://127.0.0.1:$KCM_PORT/healthz 60
wait_http scheduler https://127.0.0.1:$SCHED_PORT/healthz 60
el "controller-manager + scheduler /healthz"
# "ready" for a test = the default ServiceAccount exists (pods are refused before)
for i in $(seq 200); do curl -fso /dev/null --cacert "$PKI/ca.crt" --cert "$PKI/admin.crt" --key "$PKI/admin.key" --noproxy '*' $API/api/v1/namespaces/default/serviceaccounts/default && break; sleep .1; done
el "default service account"
echo "export KUBECONFIG=$KUBECONFIG"
