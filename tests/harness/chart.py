"""Installs the project's Helm chart."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.cluster import Cluster
from harness.paths import REPOSITORY
from harness.steps import run, step

NAMESPACE = "tonnage-system"
RELEASE = "tonnage"
ENGINE_VERSION = "0.32.0"


def install(
    cluster: Cluster,
    *,
    operator: str,
    worker: str,
    pull_policy: str = "Never",
    labels: Mapping[str, str] | None = None,
    **values: object,
) -> None:
    """Install or upgrade the operator and wait until it is available; images by reference.

    `labels` are set on its namespace.
    """
    repository, _, tag = operator.rpartition(":")
    image = {"repository": repository or operator, "tag": tag if repository else "latest"}
    merged = {
        "image": {**image, "pullPolicy": pull_policy},
        "worker": {"image": worker, "engineVersion": ENGINE_VERSION},
        **values,
    }
    values_file = cluster.state / "values.json"
    values_file.write_text(json.dumps(merged))
    all_labels = {"pod-security.kubernetes.io/enforce": "restricted", **(labels or {})}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": all_labels}}
    )
    chart: list[str | Path] = [RELEASE, REPOSITORY / "charts/tonnage", "-n", NAMESPACE, "-f", values_file]
    with step("install the chart"):
        argv = [cluster.program("helm"), "upgrade", "--install", *chart, "--wait", "--timeout=3m"]
        run("helm upgrade", argv, env=cluster.environment)


def uninstall(cluster: Cluster) -> None:
    """Remove the operator; the CustomResourceDefinition stays, as the chart promises."""
    with step("uninstall the chart"):
        argv = [
            cluster.program("helm"),
            "uninstall",
            RELEASE,
            "-n",
            NAMESPACE,
            "--ignore-not-found",
            "--wait",
        ]
        run("helm uninstall", argv, env=cluster.environment)
        cluster.delete("namespace", NAMESPACE)


def scale_operator(cluster: Cluster, replicas: int) -> None:
    """Set how many operators run, and wait until that many do."""
    target = f"deployment/{RELEASE}"
    cluster.kubectl("scale", target, f"--replicas={replicas}", "-n", NAMESPACE)
    if replicas:
        cluster.kubectl("rollout", "status", target, "-n", NAMESPACE, "--timeout=120s")
    else:
        selector = f"app.kubernetes.io/instance={RELEASE}"
        cluster.kubectl("wait", "--for=delete", "pod", "-l", selector, "-n", NAMESPACE, "--timeout=120s")


def installed(cluster: Cluster) -> list[dict[str, Any]]:
    """The objects of the release, as helm installed them."""
    argv = [cluster.program("helm"), "get", "manifest", RELEASE, "-n", NAMESPACE]
    text = run("helm get manifest", argv, env=cluster.environment)
    return [body for body in yaml.safe_load_all(text) if body]
