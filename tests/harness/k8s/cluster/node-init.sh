#!/usr/bin/env bash
# pid 1 of the node's namespaces (see node-up.sh)
set -euo pipefail; export K8S_NODE=1; . "$(dirname "$0")/env.sh"
N=$STATE/node
mount --make-rshared /                       # shared inside, still cut off from the host
mount -t tmpfs -o mode=755 tmpfs /run        # containerd, shim and CNI sockets: short paths, no leftovers
mount --bind "$N/kubelet" /var/lib/kubelet;    mount --bind "$N/containerd" /var/lib/containerd
mount -t tmpfs tmpfs /var/lib/cni              # libcni result cache
mount --bind "$N/pods" /var/log/pods;          mount --bind "$N/containers" /var/log/containers
export PATH=$BIN:/usr/sbin:/usr/bin:/sbin:/bin
containerd --config "$N/containerd.toml" >"$LOGS/containerd.log" 2>&1 &
for i in $(seq 200); do ctr version >/dev/null 2>&1 && break; sleep .05; done
ctr -n k8s.io images import --local "$TONNAGE_CACHE/images/pause.tar"
# a pinned image is not garbage-collected
ctr -n k8s.io images label localhost/pause:1 io.cri-containerd.pinned=pinned >/dev/null
kubelet --config="$N/kubelet.yaml" --kubeconfig="$STATE/kubelet.kubeconfig" --hostname-override=$NODE_NAME \
  --node-ip=$POD_NET.1 --cert-dir=/run/kubelet-pki ${K8S_NODE_LABELS:+--node-labels=$K8S_NODE_LABELS} >"$LOGS/kubelet.log" 2>&1 &
wait -n; echo "containerd or kubelet ended: $?"     # leaving pid 1 ends everything
