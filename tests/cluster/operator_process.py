"""The operator as a process of this machine, with the rights that the chart gives it and no others."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.chart import ENGINE_VERSION, NAMESPACE, RELEASE
from harness.cluster import Cluster
from harness.paths import BIN, REPOSITORY
from harness.steps import run
from harness.waiting import wait_until

ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"


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


def install_rights(cluster: Cluster) -> None:
    """The CRD and the chart's RBAC, without its Deployment."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "crd/llmdeployments.tonnage.dev", "--timeout=60s")
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    rbac = run(
        "render rbac",
        [
            BIN / "helm",
            "template",
            RELEASE,
            REPOSITORY / "charts" / "tonnage",
            "--namespace",
            NAMESPACE,
            "--show-only",
            "templates/rbac.yaml",
        ],
    )
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=rbac)


@contextmanager
def operator_process(
    cluster: Cluster, *, port: int, identity: str = "one", ready: bool = True
) -> Iterator[OperatorProcess]:
    """Run the operator until the block ends; it is waited for until it is `ready`, or just alive."""
    log = cluster.state / "logs" / f"operator-{identity}.log"
    environment = {
        **os.environ,
        "KUBECONFIG": str(cluster.account_kubeconfig(RELEASE, namespace=NAMESPACE)),
        "NO_PROXY": cluster.environment["NO_PROXY"],
        "TONNAGE_OPERATOR_IMAGE": "tonnage/operator:test",
        "TONNAGE_WORKER_IMAGE": "tonnage/worker:test",
        "TONNAGE_ENGINE_VERSION": ENGINE_VERSION,
        "TONNAGE_NAMESPACE": NAMESPACE,
        "TONNAGE_IDENTITY": identity,
        "TONNAGE_HEALTH_PORT": str(port),
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tonnage.control"], env=environment, stdout=output, stderr=output
        )
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


def _dead(operator: OperatorProcess) -> bool:
    if operator.process.poll() is not None:
        raise AssertionError(f"the operator ended: {operator.log.read_text()[-2000:]}")
    return False
