#!/usr/bin/env bash
# One real node: containerd + runc + kubelet + kube-proxy.  Root only.
# containerd and kubelet live in their own mount and pid namespaces, so killing
# ONE process ends every shim and container and drops every mount.
set -euo pipefail; export K8S_NODE=1; . "$(dirname "$0")/env.sh"
t0=$(date +%s.%N); el() { python3 -c "import sys;print('%6.2fs %s'%(float(sys.argv[1])-$t0,sys.argv[2]))" $(date +%s.%N) "$1"; }
alive apiserver || { echo "run K8S_NODE=1 up.sh first"; exit 1; }
render "$HERE/conf/Corefile" "$STATE/Corefile"
start coredns "$BIN/coredns" -conf "$STATE/Corefile"
N=$STATE/node; mkdir -p "$N"/{cni,kubelet,containerd,pods,containers}
CGROUP=/k8s-$NODE_NAME
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then FAIL_CGROUP_V1=true; else FAIL_CGROUP_V1=false; fi
"$HERE/cgroup.sh" up "$CGROUP"
printf 'nameserver %s.1\noptions ndots:2 timeout:1 attempts:1\n' $POD_NET >"$N/resolv.conf"
render "$HERE/conf/containerd.toml" "$N/containerd.toml"
render "$HERE/conf/10-bridge.conflist" "$N/cni/10-bridge.conflist"
render "$HERE/conf/kubelet.yaml" "$N/kubelet.yaml"
render "$HERE/conf/kube-proxy.yaml" "$N/kube-proxy.yaml"
mkdir -p /var/lib/kubelet /var/lib/containerd /var/lib/cni /var/log/pods /var/log/containers   # mount points only
start node unshare --mount --propagation private --pid --fork --mount-proc --kill-child "$HERE/node-init.sh"
for i in $(seq 300); do [ -n "$("$BIN/kubectl" get node $NODE_NAME -o name 2>/dev/null)" ] && break; alive node || { tail -20 "$LOGS/node.log"; exit 1; }; sleep .1; done
el "node registered"
start kube-proxy "$BIN/kube-proxy" --config="$N/kube-proxy.yaml"
"$BIN/kubectl" wait --for=condition=Ready node/$NODE_NAME --timeout=60s
el "node Ready"
wait_http coredns http://127.0.0.1:$DNS_READY_PORT/ready 30
wait_http kube-proxy http://127.0.0.1:$PROXY_HZ_PORT/healthz 30
el "kube-proxy"
