#!/usr/bin/env bash
# load-image.sh ARCHIVE...: import into the running node (like "kind load").
set -euo pipefail; . "$(dirname "$0")/env.sh"
alive node || { echo "no node"; exit 1; }; read -r pid _ <"$RUN/node.pid"
for a in "$@"; do nsenter -t "$pid" -m "$BIN/ctr" -a /run/containerd/containerd.sock -n k8s.io images import --local "$(realpath "$a")"; done
