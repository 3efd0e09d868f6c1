#!/usr/bin/env bash
# build.sh [control|node|all|NAME...]   build (or take from the cache) the cluster's binaries; lws by its name alone.
#
# Links go to $TONNAGE_CACHE/bin, finished binaries to $TONNAGE_CACHE/bin-cache (default ~/.cache/tonnage).
# Key = NAME, version, and a hash over go.mod, go.sum, the Go version and the flags:
# a changed pin builds anew, everything else is a hard link (milliseconds).
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd); . "$HERE/versions.env"
TONNAGE_CACHE=${TONNAGE_CACHE:-$HOME/.cache/tonnage}
BIN=$TONNAGE_CACHE/bin CACHE=$TONNAGE_CACHE/bin-cache
mkdir -p "$BIN/cni" "$CACHE"
GOV=$(go env GOVERSION)-$(go env GOARCH)
export GOFLAGS="-buildvcs=false -mod=readonly" GOWORK=off CGO_ENABLED=0

pinned() { # tools/DIR MODULE WANT
  local got; got=$(awk -v m="$2" '($1==m){print $2;exit} ($1=="require"&&$2==m){print $3;exit}' "$HERE/tools/$1/go.mod")
  [ "$got" = "$3" ] || { echo "versions.env says $2 $3, tools/$1/go.mod says $got" >&2; exit 1; }
}
# one DIR VERSION OUT PACKAGE LDFLAGS [extra go flags]
one() {
  local dir=$1 ver=$2 out=$3 pkg=$4 ld="-s -w $5"; shift 5
  local key; key=$(cat "$HERE/tools/$dir"/go.mod "$HERE/tools/$dir"/go.sum $(ls "$HERE/tools/$dir"/*.go 2>/dev/null) <(echo "$GOV $CGO_ENABLED $pkg $ld $*") | sha256sum | cut -c1-16)
  local f=$CACHE/${out//\//_}-$ver-$key
  if [ ! -x "$f" ]; then
    echo "building $out $ver" >&2; local begun=$SECONDS
    go build -C "$HERE/tools/$dir" -trimpath -ldflags "$ld" "$@" -o "$f.tmp$$" "$pkg" 2>"$f.log" || { cat "$f.log" >&2; exit 1; }
    echo "built $out $ver in $((SECONDS - begun)) s" >&2
    rm -f "$f.log"; mv "$f.tmp$$" "$f"
  fi
  put "$f" "$BIN/$out"
}
put() { ln -f "$1" "$2" 2>/dev/null || cp -f "$1" "$2"; }

k8s() {
  pinned kubernetes k8s.io/kubernetes $K8S_VERSION
  local mm=${K8S_VERSION#v1.}; mm=${mm%%.*}; local ld= p
  # both packages: component-base for the servers, client-go for the User-Agent.
  # gitCommit is not in the module zip; without -X it reads "$Format:%H$".
  for p in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    ld+=" -X $p.gitVersion=$K8S_VERSION -X $p.gitMajor=1 -X $p.gitMinor=$mm -X $p.gitCommit=unknown -X $p.gitTreeState=archive -X $p.buildDate=$K8S_BUILD_DATE"
  done
  one kubernetes $K8S_VERSION $1 k8s.io/kubernetes/cmd/$1 "$ld"
}
build() {
  case $1 in
  kube-apiserver|kube-controller-manager|kube-scheduler|kube-proxy|kubelet|kubectl) k8s $1 ;;
  etcd) pinned etcd go.etcd.io/etcd/server/v3 $ETCD_VERSION; one etcd $ETCD_VERSION etcd go.etcd.io/etcd/server/v3 "" ;;
  kwok) pinned kwok sigs.k8s.io/kwok $KWOK_VERSION
    one kwok $KWOK_VERSION $1 sigs.k8s.io/kwok/cmd/$1 ""
    # the default behaviour ("stages") is data in the module, not in the binary
    local stages=$CACHE/kwok-stages-$KWOK_VERSION.yaml d f
    if [ ! -f "$stages" ]; then
      d=$(cd "$HERE/tools/kwok" && go mod download sigs.k8s.io/kwok && go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage
      for f in "$d"/node/fast/node-*.yaml "$d"/pod/fast/pod-*.yaml; do echo ---; cat "$f"; done >"$stages.tmp$$"
      mv "$stages.tmp$$" "$stages"
    fi
    put "$stages" "$BIN/kwok-stages.yaml" ;;
  lws) pinned lws sigs.k8s.io/lws $LWS_VERSION
    one lws $LWS_VERSION lws sigs.k8s.io/lws/cmd ""
    # its definition is data of the module too
    local definition=$CACHE/lws-crd-$LWS_VERSION.yaml m
    if [ ! -f "$definition" ]; then
      m=$(cd "$HERE/tools/lws" && go mod download sigs.k8s.io/lws && go list -m -f '{{.Dir}}' sigs.k8s.io/lws)
      cp "$m/config/crd/bases/leaderworkerset.x-k8s.io_leaderworkersets.yaml" "$definition.tmp$$"
      chmod u+w "$definition.tmp$$"; mv "$definition.tmp$$" "$definition"
    fi
    put "$definition" "$BIN/lws-crd.yaml" ;;
  coredns) pinned coredns github.com/coredns/coredns $COREDNS_VERSION; one coredns $COREDNS_VERSION coredns . "-X github.com/coredns/coredns/coremain.GitCommit=unknown" ;;
  helm) pinned helm helm.sh/helm/v4 $HELM_VERSION; one helm $HELM_VERSION helm helm.sh/helm/v4/cmd/helm "-X helm.sh/helm/v4/internal/version.version=$HELM_VERSION" ;;
  containerd|containerd-shim-runc-v2|ctr) pinned containerd github.com/containerd/containerd/v2 $CONTAINERD_VERSION
    one containerd $CONTAINERD_VERSION $1 github.com/containerd/containerd/v2/cmd/$1 "-X github.com/containerd/containerd/v2/version.Version=$CONTAINERD_VERSION" -tags "no_btrfs no_devmapper no_zfs" ;;
  runc) pinned runc github.com/opencontainers/runc $RUNC_VERSION
    # nsenter is C: needs cgo, a static libc (libc6-dev) and libseccomp-dev + pkg-config.
    # The seccomp tag is not optional: CRI gives every sandbox a seccomp profile.
    CGO_ENABLED=1 one runc $RUNC_VERSION runc github.com/opencontainers/runc "-extldflags -static" -tags "netgo osusergo seccomp" ;;
  cni) pinned cni github.com/containernetworking/plugins $CNI_VERSION; local p
    for p in main/bridge main/loopback main/ptp ipam/host-local meta/portmap; do
      one cni $CNI_VERSION cni/${p##*/} github.com/containernetworking/plugins/plugins/$p "-X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=$CNI_VERSION"
    done ;;
  pause) local f=$CACHE/pause-1-$GOV-$(sha256sum <"$HERE/pause/main.go" | cut -c1-8)
    [ -x "$f" ] || (cd "$HERE/pause" && go build -trimpath -ldflags "-s -w" -o "$f" .)
    put "$f" "$BIN/pause" ;;
  *) echo "unknown: $1" >&2; exit 1 ;;
  esac
}
CONTROL="etcd kube-apiserver kube-controller-manager kube-scheduler kubectl kwok helm"
NODE="kubelet kube-proxy containerd containerd-shim-runc-v2 ctr runc cni pause coredns"
set -- ${@:-all}
for n in "$@"; do
  case $n in control) l=$CONTROL;; node) l=$NODE;; all) l="$CONTROL $NODE";; *) l=$n;; esac
  for b in $l; do build $b; done
done
