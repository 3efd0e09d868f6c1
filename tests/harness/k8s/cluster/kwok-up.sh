#!/usr/bin/env bash
# KWOK plays kubelet for every node annotated kwok.x-k8s.io/node=fake.
# At scale (hundreds of nodes) raise K8S_KWOK_LEASE and up.sh's K8S_NODE_GRACE: renewals that
# come late turn nodes NotReady, and pods once marked not ready stay so (stage "pod-ready"
# acts on Pending pods only).
set -euo pipefail; . "$(dirname "$0")/env.sh"
cat "$HERE/conf/kwok.yaml" "$BIN/kwok-stages.yaml" <(echo ---) "$HERE/conf/stages.yaml" >"$STATE/kwok.yaml"
start kwok "$BIN/kwok" --kubeconfig="$STATE/kwok.kubeconfig" --config="$STATE/kwok.yaml" \
  --manage-all-nodes=false --manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake \
  --node-ip=127.0.0.1 --cidr=${K8S_KWOK_CIDR:-10.200.0.1/16} --node-lease-duration-seconds=${K8S_KWOK_LEASE:-40} --server-address=127.0.0.1:$KWOK_PORT
wait_http kwok http://127.0.0.1:$KWOK_PORT/healthz 30
