"""LeaderWorkerSet in a simulated cluster: its definition, and its real controller with its webhooks."""

import base64
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from harness.cluster import Cluster
from harness.lifecycle import build_binaries
from harness.paths import BIN
from harness.steps import StepError
from harness.waiting import wait_until

DEFINITION = "leaderworkersets.leaderworkerset.x-k8s.io"
_GROUP = "leaderworkerset.x-k8s.io"
# what LWS config/webhook/manifests.yaml registers (v0.7.0): kind of configuration, group, resource,
# operations, path
_WEBHOOKS = (
    ("Mutating", _GROUP, "leaderworkersets", ("CREATE", "UPDATE"), f"mutate-{_GROUP}-v1-leaderworkerset"),
    ("Mutating", "", "pods", ("CREATE",), "mutate--v1-pod"),
    ("Validating", _GROUP, "leaderworkersets", ("CREATE", "UPDATE"), f"validate-{_GROUP}-v1-leaderworkerset"),
)


def install_definition(cluster: Cluster) -> None:
    """The CustomResourceDefinition as its project publishes it; its module is built at the first call."""
    build_binaries("lws")
    cluster.kubectl("apply", "--server-side", "-f", str(BIN / "lws-crd.yaml"))
    established = ("wait", "--for=condition=Established", f"crd/{DEFINITION}", "--timeout=60s")
    wait_until("the definition", lambda: "met" in cluster.kubectl(*established, check=False))


def remove_definition(cluster: Cluster) -> None:
    """With it goes every set."""
    cluster.kubectl("delete", "crd", DEFINITION, "--ignore-not-found", "--timeout=60s")


@contextmanager
def group_controller(cluster: Cluster) -> Iterator[None]:
    """The controller, which makes pods of sets, beside the control plane while this is open."""
    port = cluster.port_base + 14
    directory = cluster.state / "lws"
    directory.mkdir(exist_ok=True)
    pki = cluster.state / "pki"
    for name, source in (("tls.crt", "etcd.crt"), ("tls.key", "etcd.key")):
        shutil.copy(pki / source, directory / name)
    config = {
        "apiVersion": "config.lws.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "webhook": {"host": "127.0.0.1", "port": port, "certDir": str(directory)},
        "health": {"healthProbeBindAddress": f"127.0.0.1:{port + 1}"},
        "metrics": {"bindAddress": "0"},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    install_definition(cluster)
    hooks = _webhooks(port, authority=(pki / "ca.crt").read_bytes())
    argv: list[str | Path] = [BIN / "lws", f"--config={directory / 'config.yaml'}", "--zap-log-level=info"]
    environment = {**os.environ, **cluster.environment}
    with (cluster.state / "logs/lws.log").open("ab") as log:
        process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log)
    try:
        # pods of others are asked about too: not before somebody answers
        wait_until("the webhooks of LeaderWorkerSet", lambda: _listens(process, port))
        cluster.apply(*hooks)
        yield
    finally:
        cluster.remove(*hooks)
        process.terminate()
        process.wait(timeout=30)


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    if process.poll() is not None:
        raise StepError("the controller of LeaderWorkerSet ended; its log is logs/lws.log")
    tables = ("/proc/net/tcp", "/proc/net/tcp6")
    rows = [line.split() for table in tables for line in open(table).read().splitlines()[1:]]  # noqa: SIM115
    return any(row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port for row in rows)


def _webhooks(port: int, *, authority: bytes) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for sort, group, resource, operations, path in _WEBHOOKS:
        name = f"{sort}WebhookConfiguration"
        meta = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": name,
            "metadata": {"name": f"lws-{sort.lower()}"},
            "webhooks": [],
        }
        found.setdefault(name, meta)["webhooks"].append(
            {
                "name": f"{sort.lower()[0]}{resource}.kb.io",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "clientConfig": {
                    "url": f"https://127.0.0.1:{port}/{path.replace('.', '-')}",
                    "caBundle": base64.b64encode(authority).decode(),
                },
                "rules": [
                    {
                        "apiGroups": [group],
                        "apiVersions": ["v1"],
                        "operations": list(operations),
                        "resources": [resource],
                    }
                ],
            }
        )
    return list(found.values())
