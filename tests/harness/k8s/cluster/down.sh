#!/usr/bin/env bash
# Kill by pid file (pid + start time), then cgroups, bridge, nft, sysctls, empty mount points.
# down.sh --wipe also removes $STATE.
set -u; export K8S_NODE=${K8S_NODE:-0}; . "$(dirname "$0")/env.sh"
[ -d "$RUN" ] || exit 0
stop kwok 5; stop kube-proxy 5; stop coredns 5
if [ -f "$RUN/node.pid" ]; then
  stop node 0                                  # SIGKILL: --kill-child ends the pid namespace
  "$HERE/cgroup.sh" down "/k8s-$NODE_NAME"
  nft delete table ip kube-proxy 2>/dev/null; nft delete table ip6 kube-proxy 2>/dev/null   # kube-proxy leaves them
  rmdir /var/lib/kubelet /var/lib/containerd /var/lib/cni /var/log/pods /var/log/containers 2>/dev/null
fi
stop scheduler 5; stop kcm 5; stop apiserver 15; stop etcd 5
[ -f "$STATE/sysctl.saved" ] && "$HERE/bridge.sh" down
[ "${1:-}" = --wipe ] && rm -rf "$STATE"
exit 0
