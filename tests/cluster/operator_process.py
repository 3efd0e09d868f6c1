"""The operator as a process of this machine, with the rights that the chart gives it and no others."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.audit import Write
from harness.chart import ENGINE_VERSION, NAMESPACE, RELEASE
from harness.cluster import Cluster
from harness.paths import BIN, REPOSITORY
from harness.steps import run
from harness.waiting import wait_until

CALM_SECONDS = 6.0
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
COMMAND = (sys.executable, "-P", "-m", "tonnage.control")
RIGHTS = {"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
IMAGES = {
    "image.repository=tonnage/operator",
    "image.tag=test",
    "worker.image=tonnage/worker:test",
    f"worker.engineVersion={ENGINE_VERSION}",
}


@dataclass(frozen=True)
class Release:
    """An installation of the chart in `NAMESPACE`, with its values as helm's --set takes them."""

    name: str = RELEASE
    values: tuple[str, ...] = ()

    @property
    def account(self) -> str:
        """The operator's user name."""
        return f"system:serviceaccount:{NAMESPACE}:{self.name}"

    def manifests(self) -> list[dict[str, Any]]:
        """What helm would install, but for the CustomResourceDefinition."""
        values = ["--set", "crds.enabled=false"]
        for value in (*sorted(IMAGES), *self.values):
            values += ["--set", value]
        chart = REPOSITORY / "charts" / "tonnage"
        argv: list[str | Path] = [BIN / "helm", "template", self.name, chart, "-n", NAMESPACE, *values]
        return [body for body in yaml.safe_load_all(run("render the chart", argv)) if body]

    def environment(self) -> dict[str, str]:
        """The variables that the operator's container is given as they stand."""
        (pod,) = [b["spec"]["template"]["spec"] for b in self.manifests() if b["kind"] == "Deployment"]
        return {v["name"]: v["value"] for v in pod["containers"][0]["env"] if "value" in v}


@dataclass
class OperatorProcess:
    """A running operator."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def page(self, path: str) -> str:
        """Body of a health or metrics page; empty while nothing answers or the answer is not 200."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except (OSError, urllib.error.URLError):
            return ""

    def metric(self, name: str) -> float:
        """Sum of a metric's samples."""
        lines = self.page("/metrics").splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name
        )

    def leads(self) -> bool:
        """Does this process hold the lease?"""
        return self.metric("tonnage_leader") == 1

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the process and return its exit code."""
        self.process.send_signal(how)
        return self.process.wait(timeout=30)


def install_rights(cluster: Cluster, release: Release | None = None) -> None:
    """The CRD and the chart's RBAC, without its Deployment."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds"))
    # of a definition without a status yet, kubectl says at once that it cannot be waited for
    established = ("wait", "--for=condition=Established", "crd/llmdeployments.tonnage.dev", "--timeout=60s")
    wait_until("the definition", lambda: "met" in cluster.kubectl(*established, check=False))
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    apply_rights(cluster, rights(release or Release()))


def apply_rights(cluster: Cluster, manifests: Sequence[Mapping[str, Any]]) -> None:
    """Create or update roles and bindings, each in its own namespace."""
    bundle = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=bundle)


def rights(release: Release) -> list[dict[str, Any]]:
    """The chart's account, roles and bindings."""
    return [body for body in release.manifests() if body["kind"] in RIGHTS]


@contextmanager
def operator_process(
    cluster: Cluster,
    *,
    port: int,
    identity: str = "one",
    ready: bool = True,
    release: Release | None = None,
) -> Iterator[OperatorProcess]:
    """Run the operator until the block ends; it is waited for until it is `ready`, or just alive."""
    release = release or Release()
    log = cluster.state / "logs" / f"operator-{identity}.log"
    environment = _environment(cluster, release, identity=identity, port=port)
    with log.open("ab") as output:
        process = subprocess.Popen(COMMAND, env=environment, stdout=output, stderr=output)
    operator = OperatorProcess(process=process, port=port, log=log)
    try:
        wait_until(
            "the operator",
            lambda: operator.page("/readyz" if ready else "/healthz") or _dead(operator),
            seconds=60,
        )
        yield operator
    finally:
        if process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                operator.stop()
            process.kill()
            process.wait()


def environment_of(cluster: Cluster, *, watched: str) -> dict[str, str]:
    """Settings of an operator in one namespace, with probes on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = _environment(cluster, Release(), identity="one", port=port)
    return {**environment, "TONNAGE_WATCH_NAMESPACES": watched}


def _environment(cluster: Cluster, release: Release, *, identity: str, port: int) -> dict[str, str]:
    return {
        **os.environ,
        **release.environment(),
        "KUBECONFIG": str(cluster.account_kubeconfig(release.name, namespace=NAMESPACE)),
        "NO_PROXY": cluster.environment["NO_PROXY"],
        "TONNAGE_NAMESPACE": NAMESPACE,
        "TONNAGE_IDENTITY": identity,
        "TONNAGE_HEALTH_PORT": str(port),
    }


def _dead(operator: OperatorProcess) -> bool:
    if operator.process.poll() is not None:
        raise AssertionError(f"the operator ended: {operator.log.read_text()[-2000:]}")
    return False


def written_in(cluster: Cluster, namespace: str, *, after: int) -> list[Write]:
    """The operator's writes in a namespace; those of earlier tests may still be ending."""
    return cluster.audit.writes(after=after, user=ACCOUNT, namespace=namespace)


def settled(cluster: Cluster, namespace: str) -> int:
    """Wait until all that was on its way is written: a position in the audit log after it.

    A status that is not urgent is held back for some seconds.
    """

    def calm() -> int:
        position = cluster.audit.position()
        time.sleep(CALM_SECONDS)
        return 0 if written_in(cluster, namespace, after=position) else position

    return wait_until("calm", calm, seconds=120)
