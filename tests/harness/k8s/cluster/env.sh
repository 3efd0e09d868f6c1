# Sourced by every script here. Nothing is written outside $STATE except what node-up.sh says it does.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TONNAGE_CACHE=${TONNAGE_CACHE:-$HOME/.cache/tonnage}
BIN=$TONNAGE_CACHE/bin
STATE=${K8S_STATE:-$TONNAGE_CACHE/cluster}    # keep it short: unix sockets allow 108 bytes
PKI=$STATE/pki LOGS=$STATE/logs RUN=$STATE/run
# node tier (needs root): 1 = put the API server on the pod bridge
NODE=${K8S_NODE:-0}
BRIDGE=${K8S_BRIDGE:-k8sbr0}
POD_NET=${K8S_POD_NET:-10.244.0}            # /24 on $BRIDGE, gateway .1
SVC_CIDR=${K8S_SVC_CIDR:-10.96.0.0/16} SVC_FIRST_IP=${K8S_SVC_FIRST_IP:-10.96.0.1}
if [ "$NODE" = 1 ]; then API_IP=$POD_NET.1; else API_IP=127.0.0.1; fi
P=${K8S_PORT_BASE:-16440}
API_PORT=$((P+3)) ETCD_PORT=$((P+1)) ETCD_PEER_PORT=$((P+2))
KCM_PORT=$((P+4)) SCHED_PORT=$((P+5)) KUBELET_PORT=$((P+6)) KUBELET_HZ_PORT=$((P+7))
KWOK_PORT=$((P+8)) PROXY_HZ_PORT=$((P+9)) PROXY_METRICS_PORT=$((P+10)) DNS_READY_PORT=$((P+11))
API=https://$API_IP:$API_PORT
NODE_NAME=${K8S_NODE_NAME:-node-1}
export KUBECONFIG=$STATE/admin.kubeconfig

# start NAME CMD... : own session, log file, pid file holding "pid starttime"
start() {
  local name=$1; shift
  setsid nohup "$@" >"$LOGS/$name.log" 2>&1 </dev/null &
  local pid=$!
  echo "$pid $(cut -d' ' -f22 /proc/$pid/stat 2>/dev/null)" >"$RUN/$name.pid"
}
# alive NAME: the recorded process, not a recycled pid
alive() {
  local pid st; [ -f "$RUN/$1.pid" ] && read -r pid st <"$RUN/$1.pid" || return 1
  [ -d /proc/$pid ] && [ "$(cut -d' ' -f22 /proc/$pid/stat 2>/dev/null)" = "$st" ] &&
    [ "$(cut -d' ' -f3 /proc/$pid/stat 2>/dev/null)" != Z ]
}
# stop NAME [grace seconds]
stop() {
  local pid st i; [ -f "$RUN/$1.pid" ] && read -r pid st <"$RUN/$1.pid" || return 0
  if alive "$1"; then
    kill "$pid" 2>/dev/null
    for i in $(seq $(( ${2:-10} * 10 ))); do alive "$1" || break; sleep .1; done
    alive "$1" && { echo "$1: SIGKILL"; kill -9 "$pid"; sleep .2; }
  fi
  rm -f "$RUN/$1.pid"
}
# wait_http NAME URL [seconds]: until 200, or the process died (then its log)
wait_http() {
  local i; for i in $(seq $(( ${3:-60} * 10 ))); do
    curl -fso /dev/null --cacert "$PKI/ca.crt" --cert "$PKI/admin.crt" --key "$PKI/admin.key" --noproxy '*' "$2" && return 0
    alive "$1" || { echo "$1 died:"; tail -15 "$LOGS/$1.log"; return 1; }
    sleep .1
  done; echo "$1 not ready after ${3:-60}s"; tail -15 "$LOGS/$1.log"; return 1
}
# render SRC DST: @NAME@ -> value of shell variable NAME
render() {
  local s; s=$(<"$1"); local v
  for v in $(grep -o '@[A-Z0-9_]*@' "$1" | tr -d @ | sort -u); do s=${s//@$v@/${!v}}; done
  printf '%s\n' "$s" >"$2"
}
