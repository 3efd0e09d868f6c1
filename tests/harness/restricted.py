"""Pods under the rules of Pod Security "restricted", and the stricter ones of this project."""

import json
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from harness.cluster import Cluster

Pod = Mapping[str, Any]
SHARED = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
VOLUMES = {"configMap", "downwardAPI", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
# what the API server's ServiceAccount admission asks for; longer-lived tokens are not bound to the pod's life
TOKEN_SECONDS = 3607
DAY_SECONDS = 86400


class SeenPods:
    """Every state of every pod that a cluster told of, by uid: the last one that had it whole."""

    def __init__(self) -> None:
        self._pods: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def take(self, pod: dict[str, Any]) -> None:
        """A pod as it is now."""
        with self._lock:
            self._pods[pod["metadata"]["uid"]] = pod

    def all(self) -> list[dict[str, Any]]:
        """The pods seen so far, also those that are gone."""
        with self._lock:
            return list(self._pods.values())


@contextmanager
def watched_pods(cluster: Cluster) -> Iterator[SeenPods]:
    """Note every pod of the cluster while the block runs."""
    seen = SeenPods()
    path = f"/api/v1/pods?watch=true&timeoutSeconds={DAY_SECONDS}"
    argv = [cluster.program("kubectl"), "get", "--raw", path]
    with subprocess.Popen(argv, env=cluster.full_environment, stdout=subprocess.PIPE) as watch:
        reader = threading.Thread(target=_note, args=(watch, seen), daemon=True)
        reader.start()
        try:
            yield seen
        finally:
            watch.terminate()
            reader.join(timeout=10)


def _note(watch: "subprocess.Popen[bytes]", seen: SeenPods) -> None:
    assert watch.stdout
    for line in watch.stdout:
        event = json.loads(line)
        if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
            seen.take(event["object"])


def faults(pod: Pod, *, token: bool = False) -> list[str]:
    """What is wrong with a pod; `token` says that it may have a bound ServiceAccount token."""
    spec = pod["spec"]
    found = [field for field in SHARED if spec.get(field)]
    found += _token_faults(spec, token=token)
    for volume in spec.get("volumes", ()):
        kinds = set(volume) - {"name"}
        found += [f"volume {volume['name']} is a {kind}" for kind in kinds - VOLUMES]
    groups: Sequence[str] = ("initContainers", "containers", "ephemeralContainers")
    for container in (each for group in groups for each in spec.get(group, ())):
        found += [f"{container['name']}: {fault}" for fault in _container_faults(container, spec)]
    return found


def _token_faults(spec: Mapping[str, Any], *, token: bool) -> list[str]:
    sources = [
        source["serviceAccountToken"]
        for volume in spec.get("volumes", ())
        for source in volume.get("projected", {}).get("sources", ())
        if "serviceAccountToken" in source
    ]
    if not token:
        automounted = spec.get("automountServiceAccountToken") is not False
        return ["a token is mounted"] * bool(automounted or sources)
    long = [s for s in sources if s.get("expirationSeconds", TOKEN_SECONDS) > TOKEN_SECONDS]
    return ["not exactly one bound token"] * (len(sources) != 1) + ["a token that lives long"] * bool(long)


def _container_faults(container: Mapping[str, Any], spec: Mapping[str, Any]) -> list[str]:
    own, pods = container.get("securityContext", {}), spec.get("securityContext", {})
    both = {**pods, **own}
    capabilities = own.get("capabilities", {})
    wanted = {
        "allowPrivilegeEscalation is not false": own.get("allowPrivilegeEscalation") is False,
        "privileged": not own.get("privileged"),
        "capabilities are kept": capabilities.get("drop") == ["ALL"] and not capabilities.get("add"),
        "may run as root": both.get("runAsNonRoot") is True and both.get("runAsUser") != 0,
        "no seccomp profile": both.get("seccompProfile", {}).get("type") == "RuntimeDefault",
        "the root file system is writable": own.get("readOnlyRootFilesystem") is True,
        "procMount": own.get("procMount", "Default") == "Default",
        "a host port": not any(port.get("hostPort") for port in container.get("ports", ())),
        **_resource_rules(container.get("resources", {})),
    }
    return [fault for fault, holds in wanted.items() if not holds]


def _resource_rules(resources: Mapping[str, Any]) -> dict[str, bool]:
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    return {
        "no request of cpu and memory": {"cpu", "memory"} <= set(requests),
        "no limit of memory": "memory" in limits,
    }
