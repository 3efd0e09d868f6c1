"""Simulated nodes, and the end of inspection pods on them."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from harness.cluster import Cluster
from harness.steps import StepError

INSPECTION_LABEL = "tonnage.dev/component=inspect"
_MESSAGE = "test.tonnage.dev/termination-message"
_EXIT_CODE = "test.tonnage.dev/exit-code"
_DISK = {"ephemeral-storage": "1Ti"}
Answer = Mapping[str, Any] | str
"""What an inspection writes as its termination message: an object becomes one line of JSON."""


def add_node(
    cluster: Cluster,
    name: str,
    *,
    cpu: str = "8",
    memory: str = "32Gi",
    pods: int = 110,
    labels: Mapping[str, str] | None = None,
    extended: Mapping[str, str] | None = None,
) -> None:
    """Add a node that KWOK keeps Ready; `extended` holds resources such as `nvidia.com/gpu`."""
    resources = {"cpu": cpu, "memory": memory, "pods": str(pods), **(extended or {})}
    add_nodes(
        cluster,
        {
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
            "status": {"capacity": resources, "allocatable": resources},
        },
    )


def add_nodes(cluster: Cluster, *bodies: Mapping[str, Any]) -> None:
    """Add nodes that KWOK keeps Ready, with the labels, taints and resources of these objects."""
    cluster.apply(*map(_simulated, bodies))
    for body in bodies:
        amounts = {key: {**_DISK, **body["status"][key]} for key in ("capacity", "allocatable")}
        cluster.patch("node", body["metadata"]["name"], {"status": amounts}, subresource="status")
    names = [f"node/{body['metadata']['name']}" for body in bodies]
    cluster.kubectl("wait", "--for=condition=Ready", *names, "--timeout=60s")


def _simulated(body: Mapping[str, Any]) -> dict[str, Any]:
    meta = body["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": meta["name"],
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/os": "linux", **meta.get("labels", {})},
        },
        **({"spec": body["spec"]} if "spec" in body else {}),
    }


def remove_node(cluster: Cluster, name: str) -> None:
    """Remove a simulated node."""
    cluster.delete("node", name)


def end_inspection(cluster: Cluster, pod: str, answer: Answer, *, namespace: str, exit_code: int = 0) -> None:
    """Let one inspection pod end with this termination message."""
    patch = {"metadata": answered_inspection(answer, exit_code=exit_code)}
    cluster.patch("pod", pod, patch, namespace=namespace)


def answered_inspection(answer: Answer, *, exit_code: int = 0) -> dict[str, Any]:
    """The part of an inspection pod's metadata that lets it end with this termination message."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return {"annotations": {_MESSAGE: text, _EXIT_CODE: str(exit_code)}}


@contextmanager
def inspections_end(
    cluster: Cluster,
    answer: Answer | Callable[[dict[str, Any]], Answer],
    *,
    namespace: str,
    exit_code: int = 0,
) -> Iterator[None]:
    """While this is open, every inspection pod of the namespace ends with the answer, or `answer(pod)`."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            for pod in cluster.find("pods", namespace=namespace, labels=INSPECTION_LABEL):
                if _MESSAGE not in pod["metadata"].get("annotations", {}):
                    said = answer(pod) if callable(answer) else answer
                    name = pod["metadata"]["name"]
                    try:
                        end_inspection(cluster, name, said, namespace=namespace, exit_code=exit_code)
                    except StepError:
                        if cluster.get("pod", name, namespace=namespace) is not None:
                            raise

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
